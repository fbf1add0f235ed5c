"""Runs a trained pipeline over the images of a manifest."""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.digests import network_sha256
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.predict import ModelInput, model_input, predict, progress

if TYPE_CHECKING:
    from collections.abc import Generator

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predict import AnomalyModel, Prediction
    from decodiff_pipeline.evaluation.predictions import PredictionStore

SCORED_SPLITS = ("calibration", "test")


def score_images(
    model: AnomalyModel,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> None:
    """Score the calibration and test images, uncertain ones too, in constant memory.

    The store is replaced as a whole once everything is scored.

    Args:
        config: Batch size and number of reverse steps.

    Raises:
        ModelError: The model does not know a category, or gives a map or score that is no number.
        ImageError: An image cannot be read.
        DataError: The predictions cannot be written.
    """
    wanted = manifest[manifest["split"].isin(SCORED_SPLITS)]
    unknown = sorted(set(wanted["category"]) - set(model.categories))
    if unknown:
        raise ModelError(
            f"the model was not trained on the category {unknown[0]!r} of the manifest (it knows "
            f"{', '.join(model.categories)}); run {kedro_run('train')} first"
        )
    ordered = wanted.sort_values("category", kind="stable")
    size = config.batch_size
    with (
        store.writing(describe(model, wanted, config)) as writer,
        closing(predictions_of(model, ordered, images, config, "scoring")) as found,
    ):
        for category, rows in ordered.groupby("category", sort=False):
            with writer.category(str(category), len(rows)) as file:
                for start in range(0, len(rows), size):
                    part = rows.iloc[start : start + size]
                    predictions = list(islice(found, len(part)))
                    file.append(
                        part,
                        maps=[one.anomaly_map for one in predictions],
                        scores=np.array([one.score for one in predictions]),
                        reconstructions=[one.reconstruction for one in predictions],
                    )


def predictions_of(
    model: AnomalyModel,
    rows: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
    name: str,
) -> Generator[Prediction, None, None]:
    """The predictions of a manifest's rows, in their order.

    Args:
        rows: All of categories that the model knows.
        config: Batch size and number of reverse steps.
        name: Of the progress bar.

    Raises:
        ModelError: The model gives a map or score that is no number.
        ImageError: An image cannot be read.
    """
    geometry = model.preprocessing

    def read(row: Any) -> ModelInput:
        return model_input(images.read(row.path), row.path, row.category, geometry)

    size, steps = config.batch_size, config.num_inference_steps
    with progress(len(rows), name) as bar, closing(read_ahead(read, rows.itertuples())) as inputs:
        for batch in predict(model, inputs, bar, batch_size=size, steps=steps):
            yield from batch


def describe(
    model: AnomalyModel, manifest: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Facts that identify the model and the images, JSON-ready.

    Args:
        manifest: The rows that are scored.
        config: The number of reverse steps, where it is not the model's own.
    """
    saved = dict(getattr(model, "config", {}))
    about = {
        "preprocessing": model.preprocessing.facts(),
        "model": type(model).__name__,
        "num_inference_steps": config.num_inference_steps or saved.get("num_inference_steps"),
        "discrepancy": saved.get("discrepancy"),
        "images_sha256": _images_digest(manifest),
    }
    network = getattr(model, "unet", None)
    if network is not None:
        about["parameters"] = sum(weights.numel() for weights in network.parameters())
        about["network_sha256"] = network_sha256(network)
    return about


def _images_digest(manifest: pd.DataFrame) -> str:
    pixels = zip(manifest["path"], pixel_identities(manifest), strict=True)
    lines = sorted(f"{path}\t{identity}" for path, identity in pixels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
