"""Converts any image to 8-bit grey or RGB and applies its EXIF orientation, for every reader.

| image | becomes |
|---|---|
| 8-bit grey, 8-bit RGB | itself |
| 1-bit | L, 0 and 255 |
| 16-bit grey (unsigned) | L, value · 255 / (2^bits - 1) rounded, whatever the image's own range |
| palette | RGB |
| alpha (LA, RGBA, palette with transparency) | composited on black, then L or RGB; refused where \
nothing is visible |
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
UNSEEN_ALPHA = 15  # of 255: an image no more opaque than that is black to the model
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
        name: What to call it in a message, such as its path.
        bits: How many of its 16 bits a 16-bit image uses; of no effect on other images.

    Raises:
        ImageError: Its mode is none of `MODES`, its alpha hides it, or a value needs more bits.
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
    """Converts images to 8 bits where their categories use fewer than 16.

    Args:
        images: Upright images.
        category: One for all images, or one for each; with another number of them the images are
            returned as they are.
        depths: Category → used bits of its 16-bit images, where it is fewer than 16.

    Raises:
        ImageError: As `to_eight_bit`.
    """
    names = [category] * len(images) if isinstance(category, str) else category
    if not depths or len(names) != len(images):
        return images
    return [
        to_eight_bit(image, f"image {number}", depths[name]) if name in depths else image
        for number, (image, name) in enumerate(zip(images, names, strict=True))
    ]


def apply_orientation(images: Image.Image | Iterable[Image.Image]) -> list[Image.Image]:
    """Lists images, or a single one, turned as their EXIF orientation says.

    Raises:
        ModelError: Something else than a PIL image is among them.
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
    """Reads how a loaded image is to be turned.

    Args:
        image: A PIL image whose pixels are loaded: some formats keep the metadata behind them.

    Returns:
        The EXIF orientation, 1 to 8, and why the metadata cannot be read, "" where it can. What
        cannot be read turns nothing.
    """
    try:
        if block := image.info.get("exif"):
            Image.Exif().load(block)  # getexif() says nothing the second time
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # whatever Pillow's parsers of EXIF, TIFF and XMP come across
        return 1, f"its EXIF or XMP block cannot be read ({error})"
    return (found, "") if isinstance(found, int) and 1 <= found <= len(TRANSPOSED) + 1 else (1, "")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as an EXIF orientation says, without the metadata that say it."""
    if orientation in TRANSPOSED:
        image = image.transpose(TRANSPOSED[orientation])
    for name in METADATA:
        image.info.pop(name, None)
    return image


def scaled_to_eight_bit(
    values: np.ndarray, name: object = "the image", bits: int = FULL_DEPTH
) -> np.ndarray:
    """Maps 0…2^bits - 1 onto 0…255, rounded.

    A stretch to the image's own range would make grey values incomparable between images, which
    is what a detector compares.

    Args:
        values: uint16, any shape.
        name: What to call the image in a message.
        bits: How many bits the values use, 8 to 16.

    Returns:
        uint8, the same shape.

    Raises:
        ImageError: A value needs more bits.
    """
    largest, found = 2**bits - 1, int(values.max(initial=0))
    if found > largest:
        raise ImageError(
            f"{name} has 16-bit values up to {found}, above {largest}, the largest of {bits} bits "
            "(data.bit_depth): check the camera's settings, or set data.bit_depth and train again."
        )
    return ((values.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _turned(image: Image.Image) -> Image.Image:
    image.load()
    orientation, _ = orientation_of(image)
    return turned(image, orientation) if orientation != 1 else image


def _require_visible(layers: Image.Image, name: object) -> None:
    alpha = int(np.asarray(layers.getchannel("A")).max())
    if alpha <= UNSEEN_ALPHA:
        told = "0" if alpha == 0 else f"at most {alpha} of 255"
        raise ImageError(
            f"{name} has an alpha channel that is {told} everywhere, so all of it is transparent: "
            "save it without the alpha channel."
        )
