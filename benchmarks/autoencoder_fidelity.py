"""How faithfully autoencoders reproduce images: one JSON line per folder and autoencoder.

    python benchmarks/autoencoder_fidelity.py --elpv --images FOLDER [--autoencoders embedded TAESD]

Images are resized to a square (bicubic) as the pipeline does it. PSNR, CIE 1976 colour difference
and saturation kept are means over images; ``seconds`` are those of one image on one thread.
``--grid FILE`` draws two images of each folder and what each autoencoder makes of them;
``--card FILE`` the picture of the embedded one's model card: originals beside reconstructions of
solar cells, of photographs, and of procedural images that it was not trained on, at 128 and 256.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from decodiff_pipeline.autoencoder.image_sources import PermissiveImages, ProceduralImages
from decodiff_pipeline.data.images import SUFFIXES, read_image
from decodiff_pipeline.deco.autoencoder import decode, encode, load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import DataError, DecodiffError
from decodiff_pipeline.metrics.reconstruction import has_colour, psnr, saturation_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from decodiff_pipeline.deco.autoencoder import Autoencoder

PICTURED = 2  # images of a folder in the grid
CARD_SIZES = (128, 256)
# Linear sRGB to CIE XYZ under D65 (IEC 61966-2-1).
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
CIE_EPSILON, CIE_KAPPA = 216 / 24389, 24389 / 27


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        autoencoders = {
            name: load_autoencoder(AutoencoderConfig(name)) for name in options.autoencoders
        }
        rows = []
        for folder in ([_elpv()] if options.elpv else []) + [Path(one) for one in options.images]:
            paths = _paths(folder)[:: options.every]
            rows += _row(paths[:: -(-len(paths) // PICTURED)], list(autoencoders.values()), options)
            for name, autoencoder in autoencoders.items():
                _measure(name, autoencoder, folder, paths, options)
        if options.card:
            autoencoder = load_autoencoder(AutoencoderConfig(options.autoencoders[0]))
            Image.fromarray(_card(autoencoder)).save(options.card, quality=88)
        if options.grid:
            Image.fromarray(np.concatenate(rows)).save(options.grid)
    except DecodiffError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _measure(
    name: str,
    autoencoder: Autoencoder,
    folder: Path,
    paths: list[Path],
    options: argparse.Namespace,
) -> None:
    report = reconstruction_report(autoencoder, _batches(paths, options.size))
    batch = next(_batches(paths[:1], options.size))
    durations = []
    for _ in range(5):
        started = time.perf_counter()
        decode(autoencoder, encode(autoencoder, batch)[0])
        durations.append(time.perf_counter() - started)
    line = {"folder": "/".join(folder.parts[-3:]), "size": options.size, "autoencoder": name}
    line |= {key: report[key] for key in ("images", "psnr", "psnr_p05", "delta_e")}
    line |= {"saturation_kept": report["saturation_kept"], "seconds": round(min(durations), 4)}
    print(json.dumps(line), flush=True)


def _row(
    paths: list[Path], autoencoders: list[Autoencoder], options: argparse.Namespace
) -> list[np.ndarray]:
    """The images, then what each autoencoder makes of them, side by side: (S, S * n, 3) uint8."""
    batch = next(_batches(paths[:PICTURED], options.size))
    parts = [batch, *(decode(one, encode(one, batch)[0]) for one in autoencoders)]
    pixels = [((part.clamp(-1, 1) + 1) * 127.5).round().byte().cpu() for part in parts]
    row = torch.stack(pixels, 1).permute(0, 1, 3, 4, 2).flatten(0, 1)  # (images * parts, S, S, 3)
    return [np.concatenate(list(row.numpy()), axis=1)]


def _card(autoencoder: Autoencoder) -> np.ndarray:
    """A row per kind of image; per size two images, each beside its reconstruction."""
    cells, photographs, drawn = _paths(_elpv()), PermissiveImages(), ProceduralImages(1)
    kinds = [
        [read_image(cells[0]), read_image(cells[2000])],
        [Image.fromarray(photographs[0]), Image.fromarray(photographs[6])],
        *[[Image.fromarray(drawn[i]) for i in pair] for pair in ((4, 5), (2, 13), (8, 20))],
    ]
    rows = []
    for images in kinds:
        parts = []
        for size in CARD_SIZES:
            config = PreprocessConfig(size, size)
            batch = to_tensor([to_square(image, config) for image in images])
            again = decode(autoencoder, encode(autoencoder, batch)[0])
            for pixels in torch.stack([batch, again], 1).flatten(0, 1):
                square = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
                shown = Image.fromarray(square.numpy()).resize(
                    (CARD_SIZES[-1],) * 2, Image.Resampling.NEAREST
                )
                parts.append(np.asarray(shown))
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--autoencoders", nargs="+", default=["embedded"], help="embedded, folders or hub ids"
    )
    parser.add_argument("--images", nargs="*", default=[], help="folders, searched recursively")
    parser.add_argument("--elpv", action="store_true", help="the images of package elpv-dataset")
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 32")
    parser.add_argument("--every", type=int, default=1, help="take every N-th image")
    parser.add_argument("--grid", help="file that the picture grid is written to")
    parser.add_argument("--card", help="file that the model card's picture is written to")
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


def _batches(paths: list[Path], size: int) -> Iterator[torch.Tensor]:
    config = PreprocessConfig(size, size)
    for start in range(0, len(paths), 8):
        squares = [to_square(read_image(path), config) for path in paths[start : start + 8]]
        yield to_tensor(squares).contiguous(memory_format=torch.channels_last)


def delta_e(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Mean CIE 1976 colour difference of each image; about 2 is just noticeable.

    Args:
        images: Float (N, 3, H, W) within [-1, 1], sRGB.
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,): the mean over pixels of the Euclidean distance in CIE L*a*b*.
    """
    difference = cie_lab(images) - cie_lab(reconstructions)
    return difference.square().sum(1).sqrt().mean((1, 2)).cpu().numpy()


def cie_lab(images: torch.Tensor) -> torch.Tensor:
    """Converts sRGB to CIE L*a*b* under D65.

    Args:
        images: Float (N, 3, H, W) within [-1, 1]; clamped first.

    Returns:
        Float64 (N, 3, H, W): L* 0 to 100, a* and b* about -128 to 128.
    """
    encoded = (images.double().clamp(-1, 1) + 1) / 2
    linear = torch.where(
        encoded <= 0.04045,
        encoded / 12.92,
        ((encoded + 0.055) / 1.055) ** 2.4,
    )
    matrix = torch.tensor(XYZ, dtype=torch.float64, device=images.device)
    xyz = torch.einsum("kc,nchw->nkhw", matrix / matrix.sum(1, keepdim=True), linear)
    root = torch.where(
        xyz > CIE_EPSILON, xyz.clamp_min(1e-12) ** (1 / 3), (CIE_KAPPA * xyz + 16) / 116
    )
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def reconstruction_report(
    autoencoder: Autoencoder, batches: Iterable[torch.Tensor]
) -> dict[str, Any]:
    """Encodes and decodes images and measures what was lost.

    Args:
        autoencoder: In eval mode.
        batches: Float images (N, 3, H, W) within [-1, 1], H and W multiples of 8.

    Returns:
        ``images`` (count), ``psnr`` (mean over images, dB), ``psnr_min``, ``psnr_p05`` (5th
        percentile), ``delta_e`` (mean CIE 1976 colour difference), ``saturation_kept`` (mean over
        the images with colour, None where there is none) and ``latent_std``.

    Raises:
        ValueError: There are no images.
    """
    columns: list[NDArray[Any]] = []
    latents = []
    for images in batches:
        encoded, _ = encode(autoencoder, images)
        again = decode(autoencoder, encoded).cpu()
        kept = np.where(has_colour(images), saturation_kept(images, again), np.nan)
        columns.append(np.stack([psnr(images, again), delta_e(images, again), kept]))
        latents.append((float(encoded.mean()), float(encoded.square().mean()), encoded.numel()))
    if not columns:
        raise ValueError("no image was given")
    values, differences, kept = np.concatenate(columns, axis=1)
    mean, square, counts = np.array(latents).T
    variance = np.average(square, weights=counts) - np.average(mean, weights=counts) ** 2
    return {
        "images": len(values),
        "psnr": round(float(values.mean()), 3),
        "psnr_min": round(float(values.min()), 3),
        "psnr_p05": round(float(np.quantile(values, 0.05)), 3),
        "delta_e": round(float(differences.mean()), 3),
        "saturation_kept": None if np.isnan(kept).all() else round(float(np.nanmean(kept)), 3),
        "latent_std": round(float(np.sqrt(variance)), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
