"""Runs a trained pipeline over the images of a manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from PIL import Image

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore

SCORED_SPLITS = ("calibration", "test")


class Output(Protocol):
    """What a model returns: see `decodiff_pipeline.deco.assembly.DeCoDiffOutput`."""

    anomaly_maps: np.ndarray | list[np.ndarray]
    scores: np.ndarray
    reconstructions: np.ndarray | list[np.ndarray]


class AnomalyModel(Protocol):
    """The part of `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline` that scoring needs."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories the model knows."""

    @property
    def preprocessing(self) -> PreprocessConfig:
        """Geometry of its input."""

    def __call__(
        self,
        images: Sequence[Image.Image],
        category: str,
        num_inference_steps: int | None = None,
        batch_size: int = 16,
    ) -> Output:
        """Maps, scores and reconstructions of images."""


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
        model: The trained pipeline.
        manifest: The validated manifest.
        images: The raw images.
        store: Where the predictions go.
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
            f"{', '.join(model.categories)}); run kedro run --pipelines train first"
        )
    hide_batch_bars(model)
    with (
        store.writing(describe(model, wanted, config)) as writer,
        tqdm(total=len(wanted), desc="scoring", unit="image") as bar,
    ):
        for category, rows in wanted.groupby("category", sort=True):
            with writer.category(str(category), len(rows)) as file:
                for start in range(0, len(rows), config.batch_size):
                    batch = rows.iloc[start : start + config.batch_size]
                    output = score_batch(model, batch, images, config)
                    file.append(
                        batch,
                        maps=output.anomaly_maps,
                        scores=output.scores,
                        reconstructions=output.reconstructions,
                    )
                    bar.update(len(batch))


def hide_batch_bars(model: AnomalyModel) -> None:
    """Leave the terminal to one bar for all images, where a model would draw one a batch."""
    if hasattr(model, "set_progress_bar_config"):
        model.set_progress_bar_config(disable=True)


def score_batch(
    model: AnomalyModel, batch: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> Output:
    """What a model says of some images of one category.

    Args:
        model: The trained pipeline.
        batch: Their manifest rows.
        images: The raw images.
        config: Number of reverse steps.

    Raises:
        ModelError: The model gives a map or score that is no number.
        ImageError: An image cannot be read.
    """
    output = model(
        [images.read(path) for path in batch["path"]],
        category=batch["category"].iloc[0],
        num_inference_steps=config.num_inference_steps,
        batch_size=config.batch_size,
    )
    finite = np.array([np.isfinite(anomaly_map).all() for anomaly_map in output.anomaly_maps])
    finite &= np.isfinite(output.scores)
    if not finite.all():
        path = batch["path"].iloc[int(finite.argmin())]
        raise ModelError(
            f"the model gives NaN or infinity for {path}; its weights are damaged or the "
            "training diverged: train again, with a lower training.learning_rate"
        )
    return output


def describe(
    model: AnomalyModel, manifest: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Facts that identify the model and the images, JSON-ready.

    Args:
        model: The trained pipeline.
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
        about["network_sha256"] = _network_digest(network)
    return about


def _images_digest(manifest: pd.DataFrame) -> str:
    pixels = zip(manifest["path"], pixel_identities(manifest), strict=True)
    lines = sorted(f"{path}\t{identity}" for path, identity in pixels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _network_digest(network: Any) -> str:
    digest = hashlib.sha256()
    for name, weights in sorted(network.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(weights.detach().cpu().contiguous().flatten().view(_bytes()).numpy().data)
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8
