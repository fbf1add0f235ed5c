"""Nodes of the pipeline ``autoencoder``: glue between the catalog and the training loop.

Kedro resolves a node's annotations to find its typed parameters, so those of the two nodes name
nothing that would need torch: a model is ``Any`` there.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.training.autoencoder_config import AutoencoderTrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from decodiff_pipeline.data.image_sources import ImageSource
    from decodiff_pipeline.deco.autoencoder import Autoencoder

BATCH = 8
# Mean figures settle well before this many images, and the teacher is slow on a CPU.
MOST_MEASURED = 256


def fit_autoencoder(
    manifest: pd.DataFrame, images: ImageFolder, config: AutoencoderTrainingConfig
) -> tuple[Any, list[dict[str, float]]]:
    """Fits an autoencoder from random weights on the sources that the parameters name.

    Args:
        manifest: One row per image; the good ones of split ``train`` are the source "manifest".
        images: The raw images.
        config: Parameters ``autoencoder_training``.

    Returns:
        The ``AutoencoderTiny``, and its training log, a row per ``log_every`` steps.

    Raises:
        ConfigurationError: The teacher or the permissive images are not there.
        DataError: The manifest has no good training images.
    """
    import torch
    from tqdm import tqdm

    from decodiff_pipeline.deco.autoencoder import encode
    from decodiff_pipeline.training.autoencoder import train_autoencoder

    sources = _sources(manifest, images.of(manifest), config)
    teacher = _teacher(config)
    if teacher is not None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teacher.to(device, memory_format=torch.channels_last)  # 1.5 times as fast on a CPU
    with tqdm(total=config.steps, unit="step", desc="autoencoder") as bar:

        def show(row: dict[str, float]) -> None:
            bar.set_postfix(psnr=f"{row['psnr']:.2f} dB", latent_mse=f"{row['latent_mse']:.3f}")
            bar.update(int(row["step"]) - bar.n)

        model, log = train_autoencoder(
            sources,
            config,
            teacher=None if teacher is None else lambda batch: encode(teacher, batch)[0],
            on_log=show,
        )
    return model, log


def measure_autoencoder(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    preprocessing: PreprocessConfig,
    config: AutoencoderTrainingConfig,
) -> dict[str, Any]:
    """Measures the reconstruction of good images of split ``val``, at the model's input size.

    Returns:
        See :func:`decodiff_pipeline.evaluation.reconstruction.reconstruction_report`.
    """
    from decodiff_pipeline.evaluation.reconstruction import reconstruction_report

    good = manifest[(manifest["split"] == "val") & (manifest["label"] == "good")]
    paths = list(good["path"].iloc[:: max(1, -(-len(good) // MOST_MEASURED))])
    squares = _squares(paths, images.of(manifest), preprocessing)
    return reconstruction_report(model.eval(), squares, teacher=_teacher(config))


def _sources(
    manifest: pd.DataFrame, images: ImageFolder, config: AutoencoderTrainingConfig
) -> dict[str, ImageSource]:
    from decodiff_pipeline.data.image_sources import (
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


def _teacher(config: AutoencoderTrainingConfig) -> Autoencoder | None:
    from decodiff_pipeline.deco.autoencoder import load_autoencoder, reduction
    from decodiff_pipeline.training.autoencoder_config import LATENT_STRIDE

    if config.teacher is None:
        return None
    try:
        teacher = load_autoencoder(config.teacher)
    except ConfigurationError as error:
        raise ConfigurationError(f"autoencoder_training.teacher: {error}") from error
    channels, stride = teacher.config.latent_channels, reduction(teacher)
    if (channels, stride) != (4, LATENT_STRIDE):
        raise ConfigurationError(
            f"autoencoder_training.teacher {config.teacher.source!r} has {channels} latent "
            f"channels at 1/{stride} of the resolution; name one with 4 at 1/{LATENT_STRIDE}."
        )
    return teacher


def _squares(
    paths: list[str], images: ImageFolder, preprocessing: PreprocessConfig
) -> Iterator[torch.Tensor]:
    from decodiff_pipeline.deco.geometry import squares
    from decodiff_pipeline.deco.preprocess import to_tensor

    remaining = chain.from_iterable(squares(images.read(path), preprocessing) for path in paths)
    while batch := list(islice(remaining, BATCH)):
        yield to_tensor(batch)
