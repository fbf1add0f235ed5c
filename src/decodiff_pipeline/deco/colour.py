"""Any image upright and as 8-bit grey or RGB: the same file is the same to every reader.

| image | becomes |
|---|---|
| 8-bit grey, 8-bit RGB | itself |
| 1-bit | L, 0 and 255 |
| 16-bit grey (unsigned) | L, value / 257 rounded: 65535 → 255 whatever the image's range |
| palette | RGB |
| alpha (LA, RGBA, palette with transparency) | composited on black, then L or RGB |
| CMYK, YCbCr | RGB by Pillow's formulas, colour profiles ignored |
| Lab, HSV, 32-bit integer or float | refused |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from decodiff_pipeline.errors import ImageError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

GREY_16_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
OTHER = frozenset({"P", "CMYK", "YCbCr", "RGBX"})
MODES = frozenset({"1", "L", "RGB"}) | GREY_16_BIT | WITH_ALPHA | OTHER


def to_eight_bit(image: Image.Image, name: object = "the image") -> Image.Image:
    """Converts an image to "L" or "RGB" by the rules above.

    Args:
        image: A PIL image.
        name: What to call it in a message, such as its path.

    Raises:
        ImageError: Its mode is none of `MODES`.
    """
    if image.mode in GREY_16_BIT:
        return _grey_16_to_8(image)
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        grey = image.mode in {"L", "LA", "La"}
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        on_black = Image.alpha_composite(
            black, image.convert("LA" if grey else "RGBA").convert("RGBA")
        )
        return on_black.convert("L" if grey else "RGB")
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode in OTHER:
        return image.convert("RGB")
    msg = (
        f"{name} has mode {image.mode}, which is not converted: save it as 8-bit or 16-bit grey "
        "or as 8-bit RGB."
    )
    raise ImageError(msg)


def upright(images: Image.Image | Iterable[Image.Image]) -> list[Image.Image]:
    """Lists images, or a single one, turned as their EXIF orientation says.

    Raises:
        ModelError: Something else than a PIL image is among them.
    """
    listed: list[Any] = [images] if isinstance(images, Image.Image) else list(images)
    for number, image in enumerate(listed):
        if not isinstance(image, Image.Image):
            msg = (
                f"image {number} is of type {type(image).__name__}; give PIL images, as "
                "Image.open(path) and Image.fromarray(array) make them"
            )
            raise ModelError(msg)
    return [_turned(image) for image in listed]


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # some formats keep the orientation behind the pixels
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _grey_16_to_8(image: Image.Image) -> Image.Image:
    # 65535 / 255 = 257: the full range maps onto the full range. A stretch to the image's own
    # range would make grey values incomparable between images, which is what a detector compares.
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
