"""Measurements of an image and its mask for the manifest; each file is read once."""

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

EXTREMES = (0.001, 0.999)  # quantiles, so that a few outlier pixels do not count as contrast
SIXTEEN_TO_EIGHT = 257  # 65535 / 255


def measure(root: Path, record: Record, max_pixels: int, bits: int = FULL_DEPTH) -> dict[str, Any]:
    """Read one image and its mask, and measure what validation checks.

    Returns:
        Column of the manifest → value, for what could be measured. A read error is a sentence in
        ``error`` or ``mask_error``.
    """
    facts: dict[str, Any] = {}
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
    if record.mask_path is None:
        return {}
    path = root / record.mask_path
    try:
        if not resolve_inside(root, path).exists():
            return {"mask_error": f"{root / record.path} has no mask: put it at {path}."}
        mask = read_mask(path, root=root, max_pixels=max_pixels)
    except ImageError as error:
        return {"mask_path": record.mask_path, "mask_error": str(error)}
    height, width = mask.defect.shape
    return {
        "mask_path": record.mask_path,
        "mask_width": width,
        "mask_height": height,
        "mask_pixels": int(mask.defect.sum()),
        "mask_note": mask.note,
        "mask_orientation": mask.orientation,
        "mask_lossy": mask.lossy,
    }


def contrast(image: Image.Image) -> int:
    """Difference in grey levels (0 to 255) between the quantiles `EXTREMES` of the pixels.

    Args:
        image: "L" or "RGB"; for RGB, the result is the largest of the three channels.
    """
    spans = []
    for band in image.split():
        shares = np.cumsum(band.histogram()) / (image.width * image.height)
        low, high = (int(np.searchsorted(shares, share)) for share in EXTREMES)
        spans.append(high - low)
    return max(spans)


def pixels_sha256(image: Image.Image, deep: np.ndarray | None = None) -> str:
    """SHA-256 of an image's size and pixels, independent of lossless format and mode.

    Args:
        image: "L" or "RGB".
        deep: Original 16-bit values (H, W), hashed instead of ``image``. If all are multiples of
            257, they are 8-bit values and are hashed as such.
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
