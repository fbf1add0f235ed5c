"""Nodes of the pipeline ``autoencoder``: glue between the catalog and the training loop.

Kedro resolves a node's annotations to find its typed parameters, so those of the two nodes name
nothing that would need torch: a model is ``Any`` there.
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
    """Fits an autoencoder from random weights on the sources that the parameters name.

    Args:
        manifest: One row per image; the good ones of split ``train`` are the source "manifest".

    Returns:
        The ``AutoencoderTiny``, and its training log, a row per ``log_every`` steps.

    Raises:
        ConfigurationError: The permissive images are not there.
        DataError: The manifest has no good training images.
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
    """Measures what the fitted autoencoder keeps of good val images, which the fit never saw.

    Args:
        model: From :func:`fit_autoencoder`.
        training: Size of the network, for the time that an image takes.
        scoring: Its reverse steps, for the same.

    Returns:
        The report as plain data, and as one HTML page.
    """
    from decodiff_pipeline.visibility.report import report_visibility

    return report_visibility(
        manifest,
        images.of(manifest),
        geometry=geometry,
        autoencoder=model.eval(),
        name="fitted to these images",
        config=config,
        preset=training.preset,
        reverse_steps=scoring.num_inference_steps,
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

    makers: dict[str, Callable[[], ImageSource]] = {
        "manifest": lambda: ManifestImages(manifest, images),
        "procedural": lambda: ProceduralImages(config.seed, size=max(256, config.image_size)),
        "permissive": PermissiveImages,
    }
    return {name: makers[name]() for name in config.sources}
