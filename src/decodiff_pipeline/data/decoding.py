"""From the bytes of an image file to its pixels, the same for every reader.

Pixels that are damaged are refused, also where the decoder hides it; metadata that are damaged are
left out. Of several frames (animated PNG or WebP, multi-page TIFF) none is read; of a phone's MPO
the first is.
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
MIN_SIDE = 8  # pixels of an image that is scored: one value of the latents
LOSSY_WEBP = b"VP8 "  # the chunk of pixels; the lossless one is VP8L
JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
JPEG_END = b"\xff\xd9"
LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")  # libjpeg's words
READ_AHEAD = 16  # bytes that libjpeg may have taken in beyond those that it decoded
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # beside the critical ones
EXIF_CHUNK = b"eXIf"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Keywords of the texts that may hold the orientation.
ORIENTATION_KEYWORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
MAX_PNG_TEXT = 2**20  # bytes of such a text, once decompressed
CHUNK_FRAME = 12  # bytes of a chunk that are not data: length, name, checksum


@dataclass(frozen=True)
class ImageFile:
    """A decoded image file."""

    # In the mode of the file, turned as its EXIF orientation says, without metadata.
    image: Image.Image
    orientation: int = 1  # the EXIF orientation, 1 to 8; from 5 on width and height are exchanged
    lossy: bool = False  # whether its compression changes pixels
    note: str = ""  # what is wrong with its metadata, "" for nothing
    # The lower eight of the 16 bits of a colour image, of which Pillow reads the upper ones.
    low: Image.Image | None = None

    @property
    def deep(self) -> np.ndarray | None:
        """The values of a 16-bit file, uint16 (H, W) or (H, W, 3); ``None`` for any other."""
        if self.image.mode in GREY_16_BIT:
            return np.asarray(self.image)
        if self.low is None:
            return None
        upper, lower = (np.asarray(half)[:, :, :3] for half in (self.image, self.low))
        return upper.astype(np.uint16) << 8 | lower

    def eight_bit(self, name: object = "the image", bits: int = FULL_DEPTH) -> Image.Image:
        """The image as "L" or "RGB"; see `to_eight_bit`."""
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
    """Decodes an image file fully.

    Args:
        max_pixels: Largest width times height that is decoded.
        setting: The parameter that `max_pixels` comes from, for the message.

    Raises:
        ImageError: The file is damaged, too large, animated, or of a format that is not read.
    """
    # Pillow's own bound, from which on it warns, is 89 million; `_check_header` applies this one.
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
    except _Refused:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        raise ImageError(
            f"{path} is damaged ({error}): copy it again from its source or remove it."
        ) from error


def require_side(image: Image.Image, path: object) -> None:
    """Raise where an image is too small to be scored.

    Raises:
        ImageError: It has less than `MIN_SIDE` pixels in width or height.
    """
    if min(image.size) < MIN_SIDE:
        raise ImageError(
            f"{path} has {image.width}x{image.height} pixels, too few to be scored: send an image "
            f"of at least {MIN_SIDE}x{MIN_SIDE}."
        )


class _Refused(ImageError):
    """A sound image that is not wanted."""


def _decoded(data: bytes, path: Path, max_pixels: int, setting: str) -> ImageFile:
    note = ""
    if data.startswith(PNG_SIGNATURE):
        data, note = pixel_chunks(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_header(image, path, max_pixels, setting)
    kind, mode = image.format, image.mode
    lossy = _is_lossy(image, data)
    image.load()
    if kind in {"JPEG", "MPO"} and (damage := jpeg_damage(data)):
        raise ImageError(damage)
    orientation, unread = orientation_of(image)
    low = None
    if kind == "PNG" and is_sixteen_bit_colour(data):
        low = turned(_lower_bytes(data, mode), orientation)
    return ImageFile(turned(image, orientation), orientation, lossy, note or unread, low)


def _check_header(image: Image.Image, path: Path, max_pixels: int, setting: str) -> None:
    if image.width * image.height > max_pixels:
        raise _Refused(
            f"{path} says it has {image.width}x{image.height} pixels, more than the "
            f"{max_pixels:,} of {setting}: tile or shrink it, or raise {setting}."
        )
    frames = getattr(image, "n_frames", 1)
    # A phone's MPO is a JPEG with a second picture behind the first.
    if image.format != "MPO" and frames > 1:
        raise _Refused(
            f"{path} has {frames} frames: animated and multi-page images "
            "are refused, save the frame you want as a file of its own."
        )


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return LOSSY_WEBP in (data[12:16], *_webp_chunks(data))
    compression = image.info.get("compression", "") if image.format == "TIFF" else ""
    return image.format in {"JPEG", "MPO"} or compression in JPEG_IN_TIFF


def _webp_chunks(data: bytes) -> list[bytes]:
    """The names of the chunks of a WebP file."""
    names, at = [], 12
    while at + 8 <= len(data):
        names.append(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return names


def _lower_bytes(data: bytes, mode: str) -> Image.Image:
    """The lower byte of each 16-bit value: read as if the bytes came in the other order."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.tile = [tile._replace(args=f"{mode};16L") for tile in image.tile]
    image.load()
    return image


def jpeg_damage(data: bytes) -> str:
    """Says what libjpeg warns of in a JPEG file; Pillow does not pass its warnings on.

    libjpeg fills up what is missing of the coded pixels, with grey mostly, so that a file which was
    cut and closed with an end marker looks whole.

    Returns:
        The warning; "" where there is none, where zeros before the end marker are all that it is
        about (some cameras pad so), or where the file is of a kind that TurboJPEG does not decode.
    """
    import simplejpeg

    try:
        spaces = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
        space = spaces.get(simplejpeg.decode_jpeg_header(data)[2], "RGB")
    except ValueError:
        return ""
    try:  # an eighth of the size takes a fraction of the time, and reads as many coded pixels
        simplejpeg.decode_jpeg(data, colorspace=space, min_height=1, min_width=1)
    except ValueError as error:
        left_over = LEFT_OVER.search(str(error))
        body = data.rpartition(JPEG_END)[0]
        zeros = len(body) - len(body.rstrip(b"\0"))
        # Zeros that take the place of coded pixels are decoded as such, and fewer are left over.
        padded = left_over is not None and 0 <= zeros - int(left_over[1]) <= READ_AHEAD
        return "" if padded else str(error)
    return ""


def pixel_chunks(data: bytes) -> tuple[bytes, str]:
    """Reduces a PNG file to what decides its pixels and their orientation.

    Returns:
        A PNG file of the critical chunks, those of transparency and frames, and the metadata that
        may hold an orientation; and a sentence on a chunk of metadata that was left out because
        its checksum is wrong, "" for none.

    Raises:
        ImageError: A chunk of the pixels has a wrong checksum, or the file has no end.
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
        elif kind == EXIF_CHUNK or (kind in TEXT_CHUNKS and _may_orient(kind, content)):
            kept.append(whole)
        if kind == b"IEND":
            return b"".join(kept), note
    raise ImageError("it ends before its last chunk, IEND")


def is_sixteen_bit_colour(data: bytes) -> bool:
    """Whether a PNG file has 16 bits a channel and colour: Pillow reads the upper eight alone."""
    depth, colour = data[24:26]
    return depth == 16 and colour in {2, 6}  # noqa: PLR2004 - RGB and RGBA of the PNG standard


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and all bytes of each chunk that the file holds in full."""
    at = len(PNG_SIGNATURE)
    while at + CHUNK_FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + CHUNK_FRAME + length
        if end > len(data):
            return
        yield kind, data[at + 8 : end - 4], data[at:end]
        at = end


def _may_orient(kind: bytes, content: bytes) -> bool:
    if not content.startswith(ORIENTATION_KEYWORDS) or len(content) > MAX_PNG_TEXT:
        return False
    if kind != b"zTXt":  # a compressed iTXt keeps its two flags behind the keyword
        _, _, rest = content.partition(b"\0")
        return kind == b"tEXt" or rest[:1] == b"\0"
    try:
        inflate = zlib.decompressobj()
        inflate.decompress(content.partition(b"\0")[2][1:], MAX_PNG_TEXT)
    except zlib.error:
        return False
    return not inflate.unconsumed_tail


def suffix_of(data: bytes) -> str:
    """The suffix of an image file that has been read before, by its content."""
    return SUFFIX_OF.get(Image.open(io.BytesIO(data), formats=FORMATS).format or "", ".webp")
