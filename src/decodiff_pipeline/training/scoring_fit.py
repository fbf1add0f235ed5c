"""Assembles a model and fits its scoring to val images: limits, weight, image scores."""

from __future__ import annotations

import logging
import math
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.data.bit_depth import depth_of_categories
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.regions import load_regions
from decodiff_pipeline.data.synthetic_defects import HARDER
from decodiff_pipeline.data.synthetic_images import synthetic_images
from decodiff_pipeline.data.transforms import square_inside
from decodiff_pipeline.deco.autoencoder import reduction
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.reference import DiscrepancyReference
from decodiff_pipeline.deco.regions import latent_cells
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.predict import ModelInput, measure_discrepancies, progress
from decodiff_pipeline.training.scoring import images_to_fit
from decodiff_pipeline.training.scoring_choice import (
    Drawn,
    choose_image_scores,
    choose_weight,
    image_auroc,
)
from decodiff_pipeline.training.usual_deviations import fit_deviations
from decodiff_pipeline.training.validation import evenly_drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import DiscrepancyConfig, ImageScoreConfig, PreprocessConfig
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)

# Images over all categories. Their discrepancies stay in memory.
MAX_GOOD = 1024
MAX_DEFECTIVE = 256
# A category with few images gets up to 8 defects per image, up to about 48 in all.
MAX_VERSIONS, MIN_DEFECTS = 8, 48
LOW_AUROC = 0.6  # image AUROC on synthetic defects; 0.5 is chance


def build_model(
    autoencoder: Autoencoder,
    unet: DeCoDiffUNet,
    *,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: ScoringConfig,
) -> DeCoDiffPipeline:
    """Assemble a model and fit usual deviations, reference and scoring, as configured.

    Args:
        manifest: The validated manifest. The usual deviations are fitted to good train images,
            the rest to good val images.

    Raises:
        ConfigurationError: A region does not match the images.
        DataError: There is no good val image to fit to.
    """

    autoencoder.to(device := resolve_device())
    unet.to(device)
    by_position = config.discrepancy.normalisation == "position"
    latent_size = geometry.image_size // reduction(autoencoder)
    reference = DiscrepancyReference(len(unet.categories), geometry.image_size, latent_size)
    model = DeCoDiffPipeline(
        autoencoder,
        unet,
        DeCoDiffScheduler(reverse_step=config.reverse_step),
        reference if by_position else None,
        preprocess=geometry.facts(),
        discrepancy=config.discrepancy.facts(),
        num_inference_steps=config.num_inference_steps,
        bfloat16=config.bfloat16,
        bit_depths=depth_of_categories(manifest),
        regions={
            name: region.facts()
            for name, region in load_regions(config.regions, manifest, geometry).items()
        },
    )
    model.for_inference()
    if config.usual_components:
        model.register_modules(deviations=fit_deviations(model, manifest, images, config))
    if config.looks_at_images:
        fit_scoring(model, manifest, images, config)
    return model


def fit_scoring(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> None:
    """Fit the model's reference and scoring in place, as configured.

    At most 1,024 good val images are used, and synthetic defects are drawn into at most 256 of
    them, balanced over the categories. Of a tiled image one tile is used.

    Args:
        manifest: The validated manifest; only its good val images are used.

    Raises:
        DataError: There is no good val image of a category the model knows.
        ImageError: An image cannot be read.
        ModelError: A fitted limit is not positive.
    """
    good = measure_good(model, manifest, images, config)
    if config.fit == "none":
        return
    fitted = replace(
        config.discrepancy,
        pixel_limit=_limit("pixel", good.pixel, config, good.inside),
        latent_limit=_limit("latent", good.latent, config, good.inside),
    )
    record: dict[str, Any] = {"fit": config.fit, "good_images": len(good.rows)}
    logger.info(
        "clip limits fitted on %d good val images: %.4g of the pixel and %.4g of the latent "
        "discrepancy",
        *(len(good.rows), fitted.pixel_limit, fitted.latent_limit),
    )
    if config.fit != "limits":
        drawn = draw_defects(model, good, manifest, images, config)
        fitted, metrics = _fit_on_defects(fitted, drawn, model.categories, config)
        record |= metrics
    model.register_to_config(discrepancy=fitted.facts(), scoring_fit=record)


@dataclass(frozen=True)
class Good:
    """Good val images.

    Attributes:
        rows: Manifest rows.
        ids: Category ids, int64 (N,).
        pixel: Pixel discrepancies in the model's units, float32 (N, S, S).
        latent: Latent discrepancies, float32 (N, s, s).
        inside: Pixels inside of the regions, bool (N, S, S); ``None`` for all.
    """

    rows: pd.DataFrame
    ids: np.ndarray
    pixel: np.ndarray
    latent: np.ndarray
    inside: np.ndarray | None


def measure_good(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> Good:
    """Measure the discrepancies of good images; fit the reference, if the model has one."""
    rows = images_to_fit(manifest, model.categories)
    numbers = {category: number for number, category in enumerate(model.categories)}
    ids = rows["category"].map(numbers).to_numpy(copy=True)
    selected = evenly_drawn(ids, MAX_GOOD)
    rows, ids = rows.iloc[selected], ids[selected]
    geometry, regions = model.preprocessing, model.regions
    inside = np.ones((len(rows), model.image_size, model.image_size), bool) if regions else None

    def read(item: tuple[int, Any]) -> ModelInput:
        number, row = item
        image = images.read(row.path)
        region = regions.get(row.category)
        square, square_region = square_inside(image, geometry, row.sha256, region)
        if inside is not None and square_region is not None:
            inside[number] = square_region
        return ModelInput(row.path, row.category, image.size, [square])

    with closing(read_ahead(read, enumerate(rows.itertuples()))) as squares:
        pixel, latent = _discrepancies(model, squares, len(rows), config)
    if config.discrepancy.normalisation == "position":
        for number, category in enumerate(model.categories):
            members = ids == number
            if not members.any():
                logger.warning(
                    "%s has no val image: it gets the statistics of all categories", category
                )
                members[:] = True
            model.reference.fit(number, pixel[members], latent[members])
        pixel, latent = _normalised(model, ids, pixel, latent)
    return Good(rows, ids, pixel, latent, inside)


def _limit(
    name: str, values: np.ndarray, config: ScoringConfig, inside: np.ndarray | None = None
) -> float:
    if inside is not None:
        side = values.shape[-1]
        values = values[inside if side == inside.shape[-1] else latent_cells(inside, side)]
    limit = float(config.limit_factor * np.quantile(values, config.limit_quantile))
    if not (math.isfinite(limit) and limit > 0):
        raise ModelError(
            f"the limit of the {name} discrepancy fitted on good val images is {limit}: the model "
            "changes nothing in them, or its weights are not finite; train longer, or set "
            f"scoring.fit to none and scoring.discrepancy.{name}_limit yourself"
        )
    return limit


def draw_defects(
    model: DeCoDiffPipeline,
    good: Good,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: ScoringConfig,
    version: int = HARDER,
) -> Drawn:
    """Draw synthetic defects into some of the good images, and measure their discrepancies."""
    selected = evenly_drawn(good.ids, MAX_DEFECTIVE)
    ids = good.ids[selected]
    indices = {path: index for index, path in enumerate(good.rows["path"].iloc[selected])}
    versions = np.clip(-(-MIN_DEFECTS // np.bincount(ids, minlength=1).clip(1)), 1, MAX_VERSIONS)
    defects = [
        defect
        for defect in synthetic_images(manifest, MAX_VERSIONS, version=version)
        if defect.path in indices and defect.number < versions[ids[indices[defect.path]]]
    ]
    sources = np.array([indices[defect.path] for defect in defects])
    masks = np.zeros((len(defects), model.image_size, model.image_size), bool)
    regions = model.regions

    def draw(number: int) -> ModelInput:
        defect = defects[number]
        region = regions.get(defect.category)
        square, masks[number] = defect.draw(images, model.preprocessing, region)
        return ModelInput(defect.path, defect.category, square.shape[1::-1], [square])

    with closing(read_ahead(draw, range(len(defects)))) as drawn:
        pixel, latent = _discrepancies(model, drawn, len(defects), config)
    if config.discrepancy.normalisation == "position":
        pixel, latent = _normalised(model, ids[sources], pixel, latent)
    inside = None
    if good.inside is not None:
        inside = good.inside[selected]
        inside = np.concatenate([inside, inside[sources]])
    return Drawn(
        category_ids=ids,
        sources=sources,
        pixel=np.concatenate([good.pixel[selected], pixel]),
        latent=np.concatenate([good.latent[selected], latent]),
        masks=masks,
        inside=inside,
    )


def _discrepancies(
    model: DeCoDiffPipeline, images: Iterable[ModelInput], count: int, config: ScoringConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel and latent discrepancies of images with one square each."""
    with progress(count, "fitting the scoring") as bar:
        batches = list(measure_discrepancies(model, images, bar, batch_size=config.batch_size))
    return (
        np.concatenate([batch.pixel for batch in batches]),
        np.concatenate([batch.latent for batch in batches]),
    )


def _normalised(
    model: DeCoDiffPipeline, ids: np.ndarray, pixel: np.ndarray, latent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    normalised = model.reference.normalise(*map(torch.from_numpy, (ids, pixel, latent)))
    return normalised[0].numpy(), normalised[1].numpy()


def _fit_on_defects(
    given: DiscrepancyConfig, drawn: Drawn, categories: Sequence[str], config: ScoringConfig
) -> tuple[DiscrepancyConfig, dict[str, Any]]:
    maps = drawn.smoothed(given)
    fitted, precision = choose_weight(given, maps)
    if config.fit == "all":
        fitted, auroc = choose_image_scores(fitted, maps, categories)
    else:
        auroc = image_auroc(fitted, maps, categories)
    logger.info(
        "on %d synthetic defects: pixel AP %.3f with fusion %s and pixel_weight %g, image AUROC "
        "%.3f with %s",
        *(len(drawn.masks), precision, fitted.fusion, fitted.pixel_weight, auroc),
        _described(fitted.image_score("")),
    )
    for category, score in fitted.image_scores.items():
        logger.info("image score of %s: %s", category, _described(score))
    if auroc < LOW_AUROC:
        logger.warning(
            "the model hardly tells synthetic defects from good val images (image AUROC %.3f, "
            "0.5 is chance): train longer",
            auroc,
        )
    return fitted, {
        "synthetic_images": len(drawn.masks),
        "synthetic_pixel_ap": precision,
        "synthetic_image_auroc": auroc,
    }


def _described(score: ImageScoreConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(score).items())
