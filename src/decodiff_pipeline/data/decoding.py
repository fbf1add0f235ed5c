"""Decodes image files, with the same rules for every reader.

Files with damaged pixels are refused, even if the decoder accepts them; damaged metadata are
ignored. Files with several frames (animated PNG or WebP, multi-page TIFF) are refused, except for
the MPO files of phones: their first frame is read.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from decodiff_pipeline.deco.colour import (
    FULL_DEPTH,
    GREY_16_BIT,
    orientation_of,
    scaled_to_eight_bit,
    to_eight_bit,
    turned,
)
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SUFFIX_OF = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}
MAX_PIXELS = 50_000_000
MIN_SIDE = 8  # smallest side of a scored image in pixels: one latent cell
LOSSY_WEBP = b"VP8 "  # name of the pixel chunk; VP8L if lossless
JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
JPEG_END = b"\xff\xd9"
LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")  # warning of libjpeg
READ_AHEAD = 16  # bytes that libjpeg may read beyond those that it decodes
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # ancillary chunks that affect pixels
EXIF_CHUNK = b"eXIf"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Keywords of text chunks that may contain the orientation.
ORIENTATION_KEYWORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
MAX_PNG_TEXT = 2**20  # largest size of such a text, in bytes after decompression
CHUNK_FRAME = 12  # bytes of a chunk's length, name and checksum


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file."""

    # In the mode of the file, with EXIF orientation applied, without metadata.
    image: Image.Image
    orientation: int = 1  # EXIF, 1 to 8; 5 to 8 exchange width and height
    lossy: bool = False  # whether the compression changes pixels
    note: str = ""  # what is wrong with the metadata; empty if nothing is
    # Lower 8 bits of a 16-bit colour image; Pillow reads the upper 8 bits only.
    low: Image.Image | None = None

    @property
    def deep(self) -> np.ndarray | None:
        """Values of a 16-bit file, uint16 (H, W) or (H, W, 3); ``None`` for other files."""
        if self.image.mode in GREY_16_BIT:
            return np.asarray(self.image)
        if self.low is None:
            return None
        upper, lower = (np.asarray(half)[:, :, :3] for half in (self.image, self.low))
        return upper.astype(np.uint16) << 8 | lower

    def eight_bit(self, name: object = "the image", bits: int = FULL_DEPTH) -> Image.Image:
        """The image as 8-bit "L" or "RGB"; see `to_eight_bit`."""
        if self.low is None or bits == FULL_DEPTH:
            return to_eight_bit(self.image, name, bits)
        values = self.deep
        assert values is not None  # noqa: S101 - it has `low`
        scaled = Image.fromarray(scaled_to_eight_bit(values, name, bits))
        if self.image.mode == "RGBA":
            scaled.putalpha(self.image.getchannel("A"))
        return to_eight_bit(scaled, name)


def decode(
    data: bytes, path: Path, max_pixels: int = MAX_PIXELS, setting: str = "data.max_pixels"
) -> ImageFile:
    """Decode all pixels of an image file.

    Args:
        max_pixels: Largest accepted width times height.
        setting: Name of the parameter that sets `max_pixels`, for messages.

    Raises:
        ImageError: The file is damaged, too large, animated, or in an unsupported format.
    """
    # Pillow warns above 89 million pixels; `_check_header` checks `max_pixels` instead.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        return _decoded(data, path, max_pixels, setting)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path} says it has more pixels than the {max_pixels:,} of {setting}: tile or shrink "
            f"it, or raise {setting}."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is no readable PNG, JPEG, BMP, TIFF or WebP image (it begins with "
            f"{data[:8]!r}): replace or remove it."
        ) from error
    except _NotAccepted:
        raise
    except Exception as error:  # Pillow's plugins raise any exception on a damaged file
        raise ImageError(
            f"{path} is damaged ({error}): copy it again from its source or remove it."
        ) from error


def require_side(image: Image.Image, path: object) -> None:
    """Check that an image is large enough to be scored.

    Raises:
        ImageError: Its width or height is below `MIN_SIDE` pixels.
    """
    if min(image.size) < MIN_SIDE:
        raise ImageError(
            f"{path} has {image.width}x{image.height} pixels, too few to be scored: send an image "
            f"of at least {MIN_SIDE}x{MIN_SIDE}."
        )


class _NotAccepted(ImageError):
    """An undamaged image that is not accepted."""


def _decoded(data: bytes, path: Path, max_pixels: int, setting: str) -> ImageFile:
    note = ""
    if data.startswith(PNG_SIGNATURE):
        data, note = _pixel_chunks(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_header(image, path, max_pixels, setting)
    kind, mode = image.format, image.mode
    lossy = _is_lossy(image, data)
    image.load()
    if kind in {"JPEG", "MPO"} and (damage := jpeg_damage(data)):
        raise ImageError(damage)
    orientation, unread = orientation_of(image)
    low = None
    if kind == "PNG" and _has_16_bit_colour(data):
        low = turned(_lower_bytes(data, mode), orientation)
    return ImageFile(turned(image, orientation), orientation, lossy, note or unread, low)


def _check_header(image: Image.Image, path: Path, max_pixels: int, setting: str) -> None:
    if image.width * image.height > max_pixels:
        raise _NotAccepted(
            f"{path} says it has {image.width}x{image.height} pixels, more than the "
            f"{max_pixels:,} of {setting}: tile or shrink it, or raise {setting}."
        )
    frames = getattr(image, "n_frames", 1)
    # An MPO file of a phone is a JPEG file with a second picture after the first.
    if image.format != "MPO" and frames > 1:
        raise _NotAccepted(
            f"{path} has {frames} frames: animated and multi-page images "
            "are refused, save the frame you want as a file of its own."
        )


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return LOSSY_WEBP in (data[12:16], *_webp_chunks(data))
    compression = image.info.get("compression", "") if image.format == "TIFF" else ""
    return image.format in {"JPEG", "MPO"} or compression in JPEG_IN_TIFF


def _webp_chunks(data: bytes) -> list[bytes]:
    names, at = [], 12
    while at + 8 <= len(data):
        names.append(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return names


def _lower_bytes(data: bytes, mode: str) -> Image.Image:
    """Lower byte of each 16-bit value, decoded with the byte order swapped."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.tile = [tile._replace(args=f"{mode};16L") for tile in image.tile]
    image.load()
    return image


def jpeg_damage(data: bytes) -> str:
    """Warning of libjpeg about a JPEG file; Pillow does not report these warnings.

    libjpeg fills missing pixels, mostly with grey. A truncated file that ends with an end marker
    therefore looks complete.

    Returns:
        The warning. It is empty if there is none, if it concerns only zeros before the end marker
        (padding of some cameras), or if TurboJPEG does not decode this kind of file.
    """
    import simplejpeg

    try:
        spaces = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
        space = spaces.get(simplejpeg.decode_jpeg_header(data)[2], "RGB")
    except ValueError:
        return ""
    try:  # decoding at 1/8 of the size is faster and reads all coded data
        simplejpeg.decode_jpeg(data, colorspace=space, min_height=1, min_width=1)
    except ValueError as error:
        left_over = LEFT_OVER.search(str(error))
        body = data.rpartition(JPEG_END)[0]
        zeros = len(body) - len(body.rstrip(b"\0"))
        # libjpeg decodes zeros in place of coded pixels, so that fewer zeros are left over.
        padded = left_over is not None and 0 <= zeros - int(left_over[1]) <= READ_AHEAD
        return "" if padded else str(error)
    return ""


def _pixel_chunks(data: bytes) -> tuple[bytes, str]:
    """Reduce a PNG file to the chunks that determine its pixels and orientation.

    Returns:
        PNG file with the critical chunks, those of transparency and animation, and metadata that
        may contain an orientation; and a note on a metadata chunk that was left out because its
        checksum is wrong, empty if there is none.

    Raises:
        ImageError: The checksum of a pixel chunk is wrong, or the chunk IEND is missing.
    """
    kept, note = [PNG_SIGNATURE], ""
    for kind, content, whole in _png_chunks(data):
        sound = zlib.crc32(kind + content) == int.from_bytes(whole[-4:], "big")
        named = kind.decode("latin-1")
        if kind in PIXEL_CHUNKS or kind[:1].isupper():
            if not sound:
                raise ImageError(f"the checksum of its chunk {named} is wrong")
            kept.append(whole)
        elif not sound:
            note = f"its metadata are damaged: the checksum of the chunk {named} is wrong"
        elif kind == EXIF_CHUNK or (kind in TEXT_CHUNKS and _may_hold_orientation(kind, content)):
            kept.append(whole)
        if kind == b"IEND":
            return b"".join(kept), note
    raise ImageError("it ends before its last chunk, IEND")


def _has_16_bit_colour(data: bytes) -> bool:
    """Whether a PNG file has 16-bit colour channels; Pillow reads their upper 8 bits only."""
    depth, colour = data[24:26]
    return depth == 16 and colour in {2, 6}  # noqa: PLR2004 - RGB and RGBA of the PNG standard


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and all bytes of each complete chunk."""
    at = len(PNG_SIGNATURE)
    while at + CHUNK_FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + CHUNK_FRAME + length
        if end > len(data):
            return
        yield kind, data[at + 8 : end - 4], data[at:end]
        at = end


def _may_hold_orientation(kind: bytes, content: bytes) -> bool:
    if not content.startswith(ORIENTATION_KEYWORDS) or len(content) > MAX_PNG_TEXT:
        return False
    if kind != b"zTXt":  # in iTXt, a compression flag follows the keyword
        _, _, rest = content.partition(b"\0")
        return kind == b"tEXt" or rest[:1] == b"\0"
    try:
        inflate = zlib.decompressobj()
        inflate.decompress(content.partition(b"\0")[2][1:], MAX_PNG_TEXT)
    except zlib.error:
        return False
    return not inflate.unconsumed_tail


def suffix_of(data: bytes) -> str:
    """File suffix by content, for an image file that `decode` accepts."""
    return SUFFIX_OF.get(Image.open(io.BytesIO(data), formats=FORMATS).format or "", ".webp")
