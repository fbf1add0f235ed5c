"""Measures one image and its mask for the manifest; each file is read once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.data.decoding import decode
from decodiff_pipeline.data.duplicates import difference_hash
from decodiff_pipeline.data.images import read_bytes, read_mask, resolve_inside
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from decodiff_pipeline.data.layouts import Record

EXTREMES = (0.001, 0.999)  # quantiles: a handful of bright pixels do not make a picture
SIXTEEN_TO_EIGHT = 257


def measure(root: Path, record: Record, max_pixels: int, bits: int = FULL_DEPTH) -> dict[str, Any]:
    """Reads one image and its mask and returns everything validation asks about them.

    Returns:
        Columns of the manifest. What cannot be read is a sentence in ``error`` or ``mask_error``.
    """
    facts: dict[str, Any] = dict.fromkeys(
        ("width", "height", "bytes", "orientation", "contrast", "bit_depth", "largest_value"), 0
    )
    facts |= dict.fromkeys(("mode", "sha256", "error", "dhash", "pixels_sha256", "note"), "")
    try:
        path = root / record.path
        data = read_bytes(path, root=root, max_pixels=max_pixels)
        facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        file = decode(data, path, max_pixels)
        image, deep = file.eight_bit(path, bits), file.deep
        facts |= {
            "mode": file.image.mode,
            "dhash": difference_hash(image),
            "pixels_sha256": pixels_sha256(image, deep),
            "contrast": contrast(image),
            "orientation": file.orientation,
            "note": file.note,
            "width": image.width,
            "height": image.height,
        }
        if deep is not None:
            facts |= {"largest_value": int(deep.max()), "bit_depth": bits}
    except ImageError as error:
        facts["error"] = str(error)
    return facts | _measure_mask(root, record, max_pixels)


def _measure_mask(root: Path, record: Record, max_pixels: int) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(
        ("mask_width", "mask_height", "mask_pixels", "mask_orientation"), 0
    )
    facts |= {"mask_path": None, "mask_error": "", "mask_note": "", "mask_lossy": False}
    if record.mask_path is None:
        return facts
    path = root / record.mask_path
    try:
        facts["mask_path"] = record.mask_path
        if not resolve_inside(root, path).exists():
            facts["mask_path"] = None
            facts["mask_error"] = f"{root / record.path} has no mask: put it at {path}."
            return facts
        mask = read_mask(path, root=root, max_pixels=max_pixels)
        height, width = mask.defect.shape
        facts |= {"mask_width": width, "mask_height": height}
        facts |= {"mask_pixels": int(mask.defect.sum()), "mask_note": mask.note}
        facts |= {"mask_orientation": mask.orientation, "mask_lossy": mask.lossy}
    except ImageError as error:
        facts["mask_error"] = str(error)
    return facts


def contrast(image: Image.Image) -> int:
    """Levels of 255 between the darkest and the brightest pixels, a thousandth of either aside.

    Args:
        image: "L" or "RGB"; of RGB, the channel with the most counts.
    """
    spans = []
    for band in image.split():
        shares = np.cumsum(band.histogram()) / (image.width * image.height)
        low, high = (int(np.searchsorted(shares, share)) for share in EXTREMES)
        spans.append(high - low)
    return max(spans)


def pixels_sha256(image: Image.Image, deep: np.ndarray | None = None) -> str:
    """SHA-256 of an image's size and pixels: the same for every lossless format and mode.

    Args:
        image: "L" or "RGB".
        deep: The 16-bit values it was made of, which count in its place unless they are 8-bit
            values at another scale.
    """
    values = np.asarray(image)
    if deep is not None:
        shallow = not (deep % SIXTEEN_TO_EIGHT).any()
        values = (deep // SIXTEEN_TO_EIGHT).astype(np.uint8) if shallow else deep
    if values.ndim == 3 and (values == values[:, :, :1]).all():  # noqa: PLR2004 - grey as RGB
        values = values[:, :, 0]
    digest = hashlib.sha256(f"{values.shape} {values.dtype} ".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
