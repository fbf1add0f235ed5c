"""The reference of the drift monitoring: features of good held-out images."""

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

MIN_IMAGES = 2  # of a PCA
# Entries of `scoring.describe` that determine the scores of a model.
IDENTITY = ("network_sha256", "discrepancy", "num_inference_steps")
REGIONS = "regions"  # a further entry, of a model with regions

Result = TypeVar("Result")


class ReferenceFile:
    """A handle on the file of a reference."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        """Read the reference; see `make_reference`.

        Raises:
            DataError: The file is missing or damaged.
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
    """Measure the features of good val and calibration images of each category.

    The latent space of a category is fitted to its training images, so that the reference images
    are unseen data, as recent images are. Only calibration images have scores, because the scoring
    is fitted to the val images.

    Args:
        predictions: Has the scores of the calibration images.

    Returns:
        JSON values: ``model`` (see `IDENTITY`) and ``categories``, each with ``space`` and
        ``values`` (feature → list of numbers).

    Raises:
        ImageError: An image cannot be read.
        ModelError: A latent is NaN or infinite.
    """
    index = predictions.index()
    calibration_scores = index[index["split"] == CALIBRATION].set_index("path")[SCORE]
    good = manifest[manifest["label"] == "good"]
    categories = {}
    for name, rows in good.groupby("category", sort=True):
        training = _sample(rows[rows["split"] == TRAIN], config.max_images)
        held_out = _sample(rows[rows["split"].isin([VAL, CALIBRATION])], config.max_images)
        if len(training) < MIN_IMAGES or held_out.empty:
            continue
        size, region = config.batch_size, model.regions.get(str(name))
        read = partial(stretched, region=region)
        squares = _batches(read, training, images, model, size, f"latents of {name}")
        space = LatentSpace.fit(
            np.concatenate([describe(model, batch) for batch in squares]), config.components
        )
        descriptors, quality = [], []
        measure = partial(Photograph.of, region=region)
        for batch in _batches(measure, held_out, images, model, size, f"reference of {name}"):
            descriptors.append(describe(model, [photograph.square for photograph in batch]))
            quality += [photograph.quality for photograph in batch]
        scores = held_out["path"].map(calibration_scores).tolist()
        values = features(space, scores, np.concatenate(descriptors), quality)
        categories[str(name)] = {
            "space": space.to_dict(),
            "values": {column: rounded(values[column].dropna().to_numpy()) for column in values},
        }
    return {"model": _select_identity(predictions.about()), "categories": categories}


def require_same_model(reference: Mapping[str, Any], model: Any) -> None:
    """Check that a reference belongs to a model, because scores of two models are not comparable.

    Raises:
        DataError: The reference belongs to another model.
    """
    expected = reference["model"]
    actual = _identity(model, expected["num_inference_steps"])
    different = [key for key in (*IDENTITY, REGIONS) if actual.get(key) != expected.get(key)]
    if different:
        raise DataError(
            f"the monitoring reference belongs to another model (its {different[0]} differs); "
            f"`{kedro_run('evaluation')}` makes one for this model"
        )


def scores_sha256(model: Any) -> str:
    """SHA-256 of everything that determines a model's scores, for the request log."""
    return sha256_of(_identity(model, None))


def reference_sha256(reference: Mapping[str, Any]) -> str:
    """`scores_sha256` of the model that a reference belongs to."""
    return sha256_of(_select_identity(reference["model"]))


def _identity(model: Any, steps: int | None) -> dict[str, Any]:
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.scoring import describe as describe_model

    no_images = pd.DataFrame({"path": [], "sha256": []})
    about = describe_model(model, no_images, EvaluationConfig(num_inference_steps=steps))
    identity: dict[str, Any] = json.loads(json.dumps(_select_identity(about)))
    return identity


def _select_identity(about: Mapping[str, Any]) -> dict[str, Any]:
    keys = [*IDENTITY, REGIONS] if REGIONS in about else IDENTITY
    return {key: about.get(key) for key in keys}


def _sample(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first rows by SHA-256: a reproducible pseudo-random sample."""
    return rows.sort_values(["sha256", "path"]).iloc[:count]


def _batches(
    read: Callable[[Image.Image, int], Result],
    rows: pd.DataFrame,
    images: ImageFolder,
    model: Any,
    size: int,
    name: str,
) -> Iterator[list[Result]]:
    """Batches of ``read(image, model.image_size)``, read ahead in threads."""

    def read_one(path: str) -> Result:
        return read(images.read(path), model.image_size)

    from decodiff_pipeline.evaluation.predict import progress  # imports torch

    with progress(len(rows), name) as bar, closing(read_ahead(read_one, rows["path"])) as results:
        while batch := list(islice(results, size)):
            yield batch
            bar.update(len(batch))
