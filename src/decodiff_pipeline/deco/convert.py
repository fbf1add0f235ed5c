"""Converts released checkpoints to a diffusers folder, or back (``python -m``)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.released_checkpoint import (
    network_from_released,
    read_released,
    resolve_categories,
)
from decodiff_pipeline.deco.released_network import (
    CLASS_ORDERS,
    describe,
    network_from_tensors,
    preset_name,
    released_tensors,
)
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.tensor_files import (
    network_folder,
    read_network_config,
    read_safetensors,
)
from decodiff_pipeline.deco.weights import WEIGHTS_FILE, AutoencoderConfig
from decodiff_pipeline.errors import ConfigurationError, DecodiffError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from decodiff_pipeline.deco.released_checkpoint import ReleasedCheckpoint
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

LATENT_REDUCTION = 8  # image pixels per latent pixel, in all released models


def convert(
    source: Path,
    target: Path,
    *,
    categories: Sequence[str] | None = None,
    dataset: str | None = None,
    num_heads: int | None = None,
    autoencoder: AutoencoderConfig | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> None:
    """Convert a released checkpoint to a diffusers folder with safetensors.

    Args:
        source: The released ``.pt``, or a ``.safetensors`` of its ``model``.
        target: The new folder: ``unet`` and ``scheduler``, or, with an autoencoder, a
            :class:`DeCoDiffPipeline` with the paper's scoring.
        categories: Names in the order of the embedding.
        dataset: ``mvtec`` or ``visa``: names in the order of the released loaders.

    Raises:
        ModelError: The checkpoint cannot be read or has another architecture, or the target
            exists.
        ConfigurationError: Names, heads or the autoencoder do not match the network.
    """
    _refuse_taken(target)
    checkpoint = read_released(source)
    tell(f"sha256 {checkpoint.sha256}  {source}")
    named = resolve_categories(checkpoint, categories, dataset)
    geometry = _geometry(checkpoint)
    unet = network_from_released(
        checkpoint,
        named.names,
        num_heads=num_heads,
        sample_size=geometry.image_size // LATENT_REDUCTION,
    )
    tell(describe(unet))
    tell(f"categories ({named.reason}): {', '.join(named.names)}")
    if checkpoint.unread:
        tell(f"entries not read: {', '.join(checkpoint.unread)}")
    vae = None if autoencoder is None else load_autoencoder(autoencoder)
    if vae is not None and vae.config.latent_channels != unet.config.in_channels:
        raise ConfigurationError(
            f"the autoencoder {autoencoder and autoencoder.source!r} makes "
            f"{vae.config.latent_channels} latent channels, but {source} needs "
            f"{unet.config.in_channels}; name the autoencoder it was trained with"
        )
    _save(unet, vae, geometry, target)
    tell(f"written: {target} ({'network and scheduler' if vae is None else 'a whole model'})")


def convert_back(
    source: Path, target: Path, tell: Callable[[str], object] = lambda _: None
) -> None:
    """Convert a network of this package to a checkpoint for the released code.

    Args:
        source: A saved model, or its ``unet`` folder.
        target: The new ``.pt`` with ``model`` and ``args``.

    Raises:
        ModelError: The network cannot be read, the released code does not support it, or the
            target exists.
    """
    _refuse_taken(target)
    folder = network_folder(source)
    # Not from_pretrained, which replaces missing tensors by random ones.
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    unet = network_from_tensors(read_network_config(folder), tensors, str, folder)
    args = _released_args(unet, source)
    content = {"model": released_tensors(unet), "args": args}
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
        raise ModelError(f"{target} cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    tell(describe(unet))
    tell(f"class numbers: {', '.join(f'{i} {name}' for i, name in enumerate(unet.categories))}")
    tell(f"written: {target}")


def _geometry(checkpoint: ReleasedCheckpoint) -> PreprocessConfig:
    """Resize and crop from the checkpoint's args, or the paper's."""
    resize = checkpoint.integer("image_size", 288)
    cropped = getattr(checkpoint.args, "center_crop", True)
    try:
        return PreprocessConfig(
            resize=resize,
            image_size=checkpoint.integer("center_size", 256) if cropped else resize,
        )
    except ConfigurationError as error:
        raise ModelError(
            f"the image sizes in the args of {checkpoint.path} do not work: {error}"
        ) from error


def _released_args(unet: DeCoDiffUNet, source: Path) -> argparse.Namespace:
    """The args that the released scripts and :func:`convert` read."""
    side = unet.config.sample_size * LATENT_REDUCTION
    geometry: dict[str, Any] = {"resize": side, "image_size": side}
    if (source / "model_index.json").is_file():
        geometry = DeCoDiffPipeline.load_config(str(source))["preprocess"]
    if (fit := geometry.get("fit", "stretch")) != "stretch":
        raise ModelError(
            f"{source} has preprocessing.fit {fit!r}, but the released code can only stretch"
        )
    orders = {names: dataset for dataset, names in CLASS_ORDERS.items()}
    return argparse.Namespace(
        dataset=orders.get(unet.categories),
        model_size=f"UNet_{preset_name(unet)}",
        num_classes=len(unet.categories),
        image_size=geometry["resize"],
        center_size=geometry["image_size"],
        center_crop=geometry["resize"] > geometry["image_size"],
        num_heads=unet.config.num_heads,
        class_order=list(unet.categories),
    )


def _refuse_taken(target: Path) -> None:
    empty_folder = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty_folder:
        raise ModelError(
            f"{target} exists already; remove it or name another, nothing is overwritten"
        )


def _save(unet: DeCoDiffUNet, vae: Any, geometry: PreprocessConfig, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        scheduler = DeCoDiffScheduler()
        if vae is None:
            unet.save_pretrained(str(temporary / "unet"))
            scheduler.save_pretrained(str(temporary / "scheduler"))
        else:
            model = DeCoDiffPipeline(vae, unet, scheduler, preprocess=geometry.facts())
            model.save_pretrained(str(temporary))
        temporary.rename(target)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{target} cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.deco.convert",
        description="Turn a checkpoint of the released DeCo-Diff code into a diffusers folder in "
        "safetensors, or back.",
    )
    parser.add_argument("source", type=Path, help="released .pt; with --to-released a folder")
    parser.add_argument("target", type=Path, help="folder to make; with --to-released a .pt")
    parser.add_argument("--to-released", action="store_true", help="the other direction")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--categories", help="names in the order of the embedding: a,b,c")
    names.add_argument("--dataset", choices=sorted(CLASS_ORDERS), help="the released order of it")
    parser.add_argument("--heads", type=int, help="of the first level, if no preset has the sizes")
    parser.add_argument(
        "--autoencoder",
        metavar="FOLDER_OR_HUB_ID",
        help="makes the folder a whole model; the paper's is stabilityai/sd-vae-ft-ema",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with a sentence and status 1 on an error."""
    parser = _parser()
    options = parser.parse_args(arguments)

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")

    forward_only = (options.categories, options.dataset, options.heads, options.autoencoder)
    if options.to_released and any(forward_only):
        parser.error("--to-released takes no other option: all else is read from the folder")
    try:
        if options.to_released:
            convert_back(options.source, options.target, tell)
            return
        convert(
            options.source,
            options.target,
            categories=options.categories and options.categories.split(","),
            dataset=options.dataset,
            num_heads=options.heads,
            autoencoder=options.autoencoder and AutoencoderConfig(source=options.autoencoder),
            tell=tell,
        )
    except DecodiffError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
