"""Fits the usual deviations of good images."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.transforms import square_inside
from decodiff_pipeline.deco.autoencoder import encode
from decodiff_pipeline.deco.deviations import UsualDeviations
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.predict import NO_NUMBER, ModelInput, batches, progress
from decodiff_pipeline.training.validation import evenly_drawn

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.training.scoring import ScoringConfig

IMAGES_PER_COMPONENT = 4


def fit_deviations(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> UsualDeviations:
    """Fit the usual deviations on good train images, without augmentation.

    At most four images per component are used for each category, and one tile of a tiled image
    (one that shows the category's region).

    Raises:
        ImageError: An image cannot be read.
        ModelError: A deviation is no number.
    """
    known = (manifest["label"] == "good") & manifest["category"].isin(model.categories)
    rows = manifest[known & (manifest["split"] == "train")]
    ids = model.unet.category_ids(rows["category"]).numpy()
    most = IMAGES_PER_COMPONENT * config.usual_components * len(model.categories)
    chosen = evenly_drawn(ids, most)
    rows, ids = rows.iloc[chosen], ids[chosen]
    deviations = _deviations(model, rows, images, config.batch_size)
    channels, side = deviations.shape[1:3]
    size = len(model.categories), config.usual_components, channels, side
    found = UsualDeviations(*size).to(deviations.device)
    for number in np.unique(ids):
        found.fit(int(number), deviations[torch.from_numpy(ids == number)])
    return found


def _deviations(
    model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder, batch_size: int
) -> torch.Tensor:
    """ẑ_0 - z of images, float32 (N, C, h, w)."""
    geometry, regions = model.preprocessing, model.regions

    def read(row: Any) -> ModelInput:
        image = images.read(row.path)
        square, _ = square_inside(image, geometry, row.sha256, regions.get(row.category))
        return ModelInput(row.path, row.category, image.size, [square])

    found = []
    with (
        closing(read_ahead(read, rows.itertuples())) as inputs,
        progress(len(rows), "usual deviations") as bar,
    ):
        for batch in batches(inputs, batch_size):
            latents, _ = encode(model.vae, to_tensor([image.squares[0] for image in batch]))
            ids = model.unet.category_ids([image.category for image in batch])
            corrected, latents = model.correct(latents, ids), latents.to(model.unet.device)
            standardised = map(model.unet.standardise, (corrected, latents.float()))
            found.append(torch.sub(*standardised))
            if not found[-1].isfinite().all():
                raise ModelError(NO_NUMBER.format(batch[0].path))
            bar.update(len(batch))
    return torch.cat(found)
