"""What good images that training did not see are like, kept beside the model."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.provenance import sha256_of
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.splits import CALIBRATION, TRAIN, VAL
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.monitoring.features import (
    SCORE,
    LatentSpace,
    Photograph,
    describe,
    features,
    rounded,
    stretched,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from PIL import Image

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.monitoring.config import ReferenceConfig

MIN_IMAGES = 2  # that axes can be fitted to
# What makes scores of one model those of another, in `scoring.describe`.
IDENTITY = ("network_sha256", "discrepancy", "num_inference_steps")
REGIONS = "regions"  # the same, of a model that has any

Result = TypeVar("Result")


class ReferenceFile:
    """A handle on the file of a reference."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        """The reference as `make_reference` returned it.

        Raises:
            DataError: There is none, or it is damaged.
        """
        cure = f"`{kedro_run('evaluation')}` writes it, beside the model"
        if not self.path.is_file():
            raise DataError(f"the reference {self.path} does not exist; {cure}")
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            content["categories"], content["model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the reference {self.path} cannot be read ({error}); {cure}"
            ) from error
        return content


def make_reference(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: ReferenceConfig,
) -> dict[str, Any]:
    """Measure good val and calibration images, each category in the latent space of its own.

    The latent space is fitted to training images, so that the images measured in it are as new to
    it as recent ones will be. Scores are the calibration images' alone, since the model's own
    units are fitted to the val images.

    Args:
        predictions: The calibration images' scores.
        config: How much is kept.

    Returns:
        JSON-ready: ``model``, what tells it from others; ``categories``, each with ``space`` and
        ``values``, a list of numbers for each feature.

    Raises:
        ImageError: An image cannot be read.
        ModelError: The model gives no number for an image.
    """
    about = predictions.about()
    index = predictions.index()
    known = index[index["split"] == CALIBRATION].set_index("path")[SCORE]
    good = manifest[manifest["label"] == "good"]
    categories = {}
    for name, rows in good.groupby("category", sort=True):
        training = _some(rows[rows["split"] == TRAIN], config.max_images)
        held_out = _some(rows[rows["split"].isin([VAL, CALIBRATION])], config.max_images)
        if len(training) < MIN_IMAGES or held_out.empty:
            continue
        size, region = config.batch_size, model.regions.get(str(name))
        seen = _batches(
            partial(stretched, region=region), training, images, model, size, f"latents of {name}"
        )
        space = LatentSpace.fit(
            np.concatenate([describe(model, batch) for batch in seen]), config.components
        )
        descriptors, quality = [], []
        read = partial(Photograph.of, region=region)
        for batch in _batches(read, held_out, images, model, size, f"reference of {name}"):
            descriptors.append(describe(model, [one.square for one in batch]))
            quality += [one.quality for one in batch]
        scores = held_out["path"].map(known).tolist()
        values = features(space, scores, np.concatenate(descriptors), quality)
        categories[str(name)] = {
            "space": space.to_dict(),
            "values": {column: rounded(values[column].dropna().to_numpy()) for column in values},
        }
    return {"model": _of_model(about), "categories": categories}


def require_same_model(reference: Mapping[str, Any], model: Any) -> None:
    """Refuse to compare scores of one model with those of another.

    Raises:
        DataError: The reference is another model's.
    """
    found = _identity(model, reference["model"]["num_inference_steps"])
    known = reference["model"]
    different = [key for key in (*IDENTITY, REGIONS) if found.get(key) != known.get(key)]
    if different:
        raise DataError(
            f"the monitoring reference belongs to another model (its {different[0]} differs); "
            f"`{kedro_run('evaluation')}` makes one for this model"
        )


def scores_sha256(model: Any) -> str:
    """What a request log keeps of a served model, to tell its scores from another model's."""
    return sha256_of(_identity(model, None))


def reference_sha256(reference: Mapping[str, Any]) -> str:
    """The same, of the model that a reference belongs to."""
    return sha256_of(_of_model(reference["model"]))


def _identity(model: Any, steps: int | None) -> dict[str, Any]:
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.scoring import describe as describe_model

    nothing = pd.DataFrame({"path": [], "sha256": []})
    about = describe_model(model, nothing, EvaluationConfig(num_inference_steps=steps))
    found: dict[str, Any] = json.loads(json.dumps(_of_model(about)))
    return found


def _of_model(about: Mapping[str, Any]) -> dict[str, Any]:
    """What makes scores of one model those of another; regions where it has any."""
    keys = [*IDENTITY, REGIONS] if REGIONS in about else IDENTITY
    return {key: about.get(key) for key in keys}


def _some(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows whose content sorts first: as good as drawn at random, and always the same."""
    return rows.sort_values(["sha256", "path"]).iloc[:most]


def _batches(
    read: Callable[[Image.Image, int], Result],
    rows: pd.DataFrame,
    images: ImageFolder,
    model: Any,
    size: int,
    name: str,
) -> Iterator[list[Result]]:
    """What is made of images and the model's input size, read ahead while the caller computes."""

    def read_one(path: str) -> Result:
        return read(images.read(path), model.image_size)

    from decodiff_pipeline.evaluation.predict import progress  # imports torch

    with progress(len(rows), name) as bar, closing(read_ahead(read_one, rows["path"])) as results:
        while batch := list(islice(results, size)):
            yield batch
            bar.update(len(batch))
