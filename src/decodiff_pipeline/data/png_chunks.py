"""The chunks of a PNG file that its pixels depend on; damage in the others does no harm.

Text, colour profiles and the like are left out before the file is decoded: a broken one, or a text
of gigabytes behind a few bytes, says nothing about the pixels.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
OF_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # beside the critical ones
EXIF = b"eXIf"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts that may hold it
MAX_TEXT = 2**20  # bytes of such a text, once decompressed
AROUND = 12  # bytes of a chunk that are not data: length, name, checksum


def pixel_chunks(data: bytes) -> tuple[bytes, str]:
    """Reduces a PNG file to what decides its pixels and their orientation.

    Returns:
        A PNG file of the critical chunks, those of transparency and frames, and the metadata that
        may hold an orientation; and a sentence on a chunk of metadata that was left out because
        its checksum is wrong, "" for none.

    Raises:
        ImageError: A chunk of the pixels has a wrong checksum, or the file has no end.
    """
    kept, note = [SIGNATURE], ""
    for kind, content, whole in _chunks(data):
        sound = zlib.crc32(kind + content) == int.from_bytes(whole[-4:], "big")
        named = kind.decode("latin-1")
        if kind in OF_PIXELS or kind[:1].isupper():
            if not sound:
                raise ImageError(f"the checksum of its chunk {named} is wrong")
            kept.append(whole)
        elif not sound:
            note = f"its metadata are damaged: the checksum of the chunk {named} is wrong"
        elif kind == EXIF or (kind in TEXTS and _may_orient(kind, content)):
            kept.append(whole)
        if kind == b"IEND":
            return b"".join(kept), note
    raise ImageError("it ends before its last chunk, IEND")


def is_sixteen_bit_colour(data: bytes) -> bool:
    """Whether a PNG file has 16 bits a channel and colour: Pillow reads the upper eight alone."""
    depth, colour = data[24:26]
    return depth == 16 and colour in {2, 6}  # noqa: PLR2004 - RGB and RGBA of the PNG standard


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and all bytes of each chunk that the file holds in full."""
    at = len(SIGNATURE)
    while at + AROUND <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + AROUND + length
        if end > len(data):
            return
        yield kind, data[at + 8 : end - 4], data[at:end]
        at = end


def _may_orient(kind: bytes, content: bytes) -> bool:
    if not content.startswith(ORIENTING) or len(content) > MAX_TEXT:
        return False
    if kind != b"zTXt":  # a compressed iTXt keeps its two flags behind the keyword
        _, _, rest = content.partition(b"\0")
        return kind == b"tEXt" or rest[:1] == b"\0"
    try:
        inflate = zlib.decompressobj()
        inflate.decompress(content.partition(b"\0")[2][1:], MAX_TEXT)
    except zlib.error:
        return False
    return not inflate.unconsumed_tail
