"""Decodes the images of a request: bytes, or base64 with strict validation.

A lenient decoder would skip invalid characters and score a different image.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

INVALID = re.compile(r"[^A-Za-z0-9+/=]")
LINE_BREAKS = str.maketrans("", "", "\r\n")  # written by MIME and by `base64` without -w0
URL_SAFE = "-_"


def image_bytes(values: Iterable[Any]) -> list[bytes]:
    """The image files of a request.

    Args:
        values: Column ``image``: bytes, or base64 text, which may contain line breaks.

    Raises:
        ImageError: A value is neither; the message names its index and the reason.
    """
    return [_decode(value, number) for number, value in enumerate(values)]


def _decode(value: Any, number: int) -> bytes:
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
            f"image {number} is a data URL: send only the base64 text after its comma."
        )
    if invalid := INVALID.search(text):
        character = invalid[0]
        cure = (
            "replace - by + and _ by /, or encode the bytes without the URL-safe alphabet"
            if character in URL_SAFE
            else "encode the bytes of the file again, and send the text unchanged"
        )
        raise ImageError(
            f"image {number} is not base64: character {invalid.start()} is {character!r}: {cure}."
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            f"image {number} is not base64 ({str(error).lower()}): the text was truncated or "
            "changed in transfer; send all of it."
        ) from error
