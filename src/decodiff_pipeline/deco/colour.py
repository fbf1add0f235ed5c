"""Converts images to 8-bit grey or RGB and applies their EXIF orientation.

| image | becomes |
|---|---|
| 8-bit grey, 8-bit RGB | unchanged |
| 1-bit | L, 0 and 255 |
| 16-bit grey (unsigned) | L, value · 255 / (2^bits - 1) rounded, independent of the image's range |
| palette | RGB |
| alpha (LA, RGBA, palette with transparency) | composited on black, then L or RGB; refused if \
fully transparent |
| CMYK, YCbCr | RGB by Pillow's formulas, colour profiles ignored |
| Lab, HSV, 32-bit integer or float | refused |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image

from decodiff_pipeline.errors import ImageError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GREY_16_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
OTHER = frozenset({"P", "CMYK", "YCbCr", "RGBX"})
MODES = frozenset({"1", "L", "RGB"}) | GREY_16_BIT | WITH_ALPHA | OTHER
FULL_DEPTH = 16  # bits
UNSEEN_ALPHA = 15  # of 255; an image with this alpha or less everywhere counts as transparent
METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # Pillow's names
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_eight_bit(
    image: Image.Image, name: object = "the image", bits: int = FULL_DEPTH
) -> Image.Image:
    """Converts an image to "L" or "RGB" by the rules above.

    Args:
        name: Name for messages, such as the path.
        bits: Number of bits that a 16-bit image uses; ignored for other images.

    Raises:
        ImageError: Its mode is not in `MODES`, it is transparent, or a value exceeds the bits.
    """
    if image.mode in GREY_16_BIT:
        return Image.fromarray(scaled_to_eight_bit(np.asarray(image), name, bits))
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        grey = image.mode in {"L", "LA", "La"}
        layers = image.convert("LA" if grey else "RGBA").convert("RGBA")
        _require_visible(layers, name)
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("L" if grey else "RGB")
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode in OTHER:
        return image.convert("RGB")
    raise ImageError(
        f"{name} has mode {image.mode}, which is not converted: save it as 8-bit or 16-bit grey "
        "or as 8-bit RGB."
    )


def to_category_depth(
    images: list[Image.Image], category: str | Sequence[str], depths: Mapping[str, int]
) -> list[Image.Image]:
    """Converts the images of categories with a configured bit depth to 8 bits.

    Args:
        images: Images with EXIF orientation applied.
        category: One for all images, or one for each; with another number of categories the
            images are returned unchanged.
        depths: Category → bits that its 16-bit images use, if fewer than 16.

    Raises:
        ImageError: See `to_eight_bit`.
    """
    names = [category] * len(images) if isinstance(category, str) else category
    if not depths or len(names) != len(images):
        return images
    return [
        to_eight_bit(image, f"image {number}", depths[name]) if name in depths else image
        for number, (image, name) in enumerate(zip(images, names, strict=True))
    ]


def apply_orientation(images: Image.Image | Iterable[Image.Image]) -> list[Image.Image]:
    """Applies the EXIF orientation of one or several images; returns a list.

    Raises:
        ModelError: An item is no PIL image.
    """
    listed: list[Any] = [images] if isinstance(images, Image.Image) else list(images)
    for number, image in enumerate(listed):
        if not isinstance(image, Image.Image):
            raise ModelError(
                f"image {number} is of type {type(image).__name__}; give PIL images, as "
                "Image.open(path) and Image.fromarray(array) make them"
            )
    return [_turned(image) for image in listed]


def orientation_of(image: Image.Image) -> tuple[int, str]:
    """Reads the EXIF orientation of an image.

    Args:
        image: A PIL image with loaded pixels, since some formats have metadata after them.

    Returns:
        The EXIF orientation, 1 to 8, and the reason why the metadata cannot be read, "" if they
        can. The orientation of unreadable metadata is 1.
    """
    try:
        if block := image.info.get("exif"):
            Image.Exif().load(block)  # getexif() raises no error at a second call
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # Pillow's parsers of EXIF, TIFF and XMP raise various errors
        return 1, f"its EXIF or XMP block cannot be read ({error})"
    return (value, "") if isinstance(value, int) and 1 <= value <= len(TRANSPOSED) + 1 else (1, "")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Applies an EXIF orientation to an image and removes its metadata."""
    if orientation in TRANSPOSED:
        image = image.transpose(TRANSPOSED[orientation])
    for name in METADATA:
        image.info.pop(name, None)
    return image


def scaled_to_eight_bit(
    values: np.ndarray, name: object = "the image", bits: int = FULL_DEPTH
) -> np.ndarray:
    """Maps 0…2^bits - 1 linearly to 0…255, rounded.

    The scale is not the image's range, so that grey values are comparable between images.

    Args:
        values: uint16, any shape.
        name: Name for messages.
        bits: Number of bits that the values use, 8 to 16.

    Returns:
        uint8, the same shape.

    Raises:
        ImageError: A value exceeds the bits.
    """
    largest, maximum = 2**bits - 1, int(values.max(initial=0))
    if maximum > largest:
        raise ImageError(
            f"{name} has 16-bit values up to {maximum}, above {largest}, the largest of {bits} "
            "bits (data.bit_depth): check the camera's settings, or set data.bit_depth and train "
            "again."
        )
    return ((values.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _turned(image: Image.Image) -> Image.Image:
    image.load()
    orientation, _ = orientation_of(image)
    return turned(image, orientation) if orientation != 1 else image


def _require_visible(layers: Image.Image, name: object) -> None:
    alpha = int(np.asarray(layers.getchannel("A")).max())
    if alpha <= UNSEEN_ALPHA:
        value = "0" if alpha == 0 else f"at most {alpha} of 255"
        raise ImageError(
            f"{name} has an alpha channel that is {value} everywhere, so all of it is transparent: "
            "save it without the alpha channel."
        )
