"""How faithfully an autoencoder reproduces images: one JSON line per folder of images.

    python benchmarks/autoencoder_psnr.py --elpv --images FOLDER [--autoencoder A] [--teacher T]

Images are resized to a square (bicubic) as the pipeline does it; PSNR is the mean over images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.data.images import SUFFIXES, read_image
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import DataError, DecodiffError
from decodiff_pipeline.evaluation.reconstruction import reconstruction_report

if TYPE_CHECKING:
    from collections.abc import Iterator


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        autoencoder = load_autoencoder(AutoencoderConfig(options.autoencoder))
        teacher = load_autoencoder(AutoencoderConfig(options.teacher)) if options.teacher else None
        folders = [Path(folder) for folder in options.images]
        for folder in ([_elpv()] if options.elpv else []) + folders:
            paths = _paths(folder)[:: options.every]
            batches = _batches(paths, PreprocessConfig(options.size, options.size))
            report = reconstruction_report(autoencoder, batches, teacher=teacher)
            name = {"autoencoder": options.autoencoder, "folder": folder.name, "size": options.size}
            print(json.dumps(name | report), flush=True)
    except DecodiffError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--autoencoder", default="embedded", help="embedded, a folder or a hub id")
    parser.add_argument("--teacher", help="folder or hub id; latents are compared with its own")
    parser.add_argument("--images", nargs="*", default=[], help="folders, searched recursively")
    parser.add_argument("--elpv", action="store_true", help="the images of package elpv-dataset")
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 32")
    parser.add_argument("--every", type=int, default=1, help="take every N-th image")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _elpv() -> Path:
    try:
        import elpv_dataset
    except ImportError as error:
        raise DataError(
            "--elpv needs the package elpv-dataset: pip install elpv-dataset."
        ) from error
    return Path(elpv_dataset.__file__).parent


def _paths(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no image: name a folder with PNG, JPEG or other images.")
    return paths


def _batches(paths: list[Path], config: PreprocessConfig) -> Iterator[torch.Tensor]:
    for start in range(0, len(paths), 8):
        yield to_tensor([to_square(read_image(path), config) for path in paths[start : start + 8]])


if __name__ == "__main__":
    sys.exit(main())
