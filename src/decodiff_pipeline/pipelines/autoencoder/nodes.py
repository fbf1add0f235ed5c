"""Nodes of the autoencoder pipeline.

Models are annotated as ``Any``: Kedro resolves the annotations of nodes at start-up, and the real
types would import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.autoencoder.config import AutoencoderTrainingConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.visibility.config import VisibilityConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.autoencoder.image_sources import ImageSource


def fit_autoencoder(
    manifest: pd.DataFrame, images: ImageFolder, config: AutoencoderTrainingConfig
) -> tuple[Any, list[dict[str, float]]]:
    """Train an ``AutoencoderTiny`` on the image sources ``autoencoder_training.sources``.

    Returns:
        The autoencoder, and the training log with a row per ``log_every`` steps.
    """
    from tqdm import tqdm

    from decodiff_pipeline.autoencoder.training import train_autoencoder

    sources = _sources(manifest, images.of(manifest), config)
    with tqdm(total=config.steps, unit="step", desc="autoencoder") as bar:

        def show(row: dict[str, float]) -> None:
            bar.set_postfix(psnr=f"{row['psnr']:.2f} dB")
            bar.update(int(row["step"]) - bar.n)

        return train_autoencoder(sources, config, on_log=show)


def measure_autoencoder(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    config: VisibilityConfig,
) -> tuple[dict[str, Any], str]:
    """Measure how well the trained autoencoder reconstructs good val images.

    Returns:
        The report as a JSON value, and as an HTML page.
    """
    from decodiff_pipeline.visibility.report import report_visibility

    return report_visibility(
        manifest,
        images.of(manifest),
        geometry,
        model.eval(),
        training,
        scoring,
        config,
        name="fitted to these images",
        page="the report autoencoder.html",
    )


def _sources(
    manifest: pd.DataFrame, images: ImageFolder, config: AutoencoderTrainingConfig
) -> dict[str, ImageSource]:
    from decodiff_pipeline.autoencoder.image_sources import (
        ManifestImages,
        PermissiveImages,
        ProceduralImages,
    )

    sources: dict[str, Callable[[], ImageSource]] = {
        "manifest": lambda: ManifestImages(manifest, images),
        "procedural": lambda: ProceduralImages(config.seed, size=max(256, config.image_size)),
        "permissive": PermissiveImages,
    }
    return {name: sources[name]() for name in config.sources}
