"""The images of a request: bytes, or base64 that is read strictly.

A lenient decoder drops foreign characters and answers with the score of another picture.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

FOREIGN = re.compile(r"[^A-Za-z0-9+/=]")
LINE_BREAKS = str.maketrans("", "", "\r\n")  # MIME and `base64` without -w0 put them in
URL_SAFE = "-_"


def image_bytes(values: Iterable[Any]) -> list[bytes]:
    """The files of a request.

    Args:
        values: Of the column ``image``: bytes, or text in base64, with line breaks or without.

    Raises:
        ImageError: One is neither; the text says which and why.
    """
    return [_file(value, number) for number, value in enumerate(values)]


def _file(value: Any, number: int) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise ImageError(
            f"image {number} is of type {type(value).__name__}: send the bytes of the file in "
            "base64."
        )
    text = value.strip().translate(LINE_BREAKS)
    if text[:5].lower() == "data:":
        raise ImageError(
            f"image {number} is a data URL: send the base64 text behind its comma alone."
        )
    if foreign := FOREIGN.search(text):
        found = foreign[0]
        cure = (
            "replace - by + and _ by /, or encode the bytes without the URL-safe alphabet"
            if found in URL_SAFE
            else "encode the bytes of the file again, and send the text as it is"
        )
        raise ImageError(
            f"image {number} is not base64: character {foreign.start()} is {found!r}: {cure}."
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            f"image {number} is not base64 ({str(error).lower()}): the text was cut or changed on "
            "its way, send all of it."
        ) from error
