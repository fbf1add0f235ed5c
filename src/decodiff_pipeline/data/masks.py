"""Parser of ground-truth masks.

Zero is background and any other value is defect, if that marks at most half of the image.
Otherwise, the value that covers most of the border may be the background instead. `parse_mask`
states the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

VOID = 255  # in masks with class numbers: unlabelled pixels
MAX_CLASS = 20  # largest class number in a mask with `VOID` pixels
MIN_CLASS_SHARE = 0.05  # smallest share of class numbers among the non-zero pixels
HALF = 0.5


class ParsedMask(NamedTuple):
    """A parsed mask."""

    defect: np.ndarray  # bool (H, W), True on the defect
    note: str = ""  # which non-zero value is read as background; "" for none


def parse_mask(image: Image.Image) -> ParsedMask:
    """Separate defect from background in a decoded mask.

    - A pixel is defect if any channel is not zero. A palette mask is read by index if index 0 is
      black, else by colour. Alpha is used if all pixels have the same colour and it varies.
    - In a mask with class numbers 1 to 20, 255 is unlabelled, as in Pascal VOC, and is read as
      background.
    - If more than half of the image would be defect, the value that covers most of the border is
      the background, provided that at most half remains defect and that the mask has no black, is
      a palette image with that value at index 0, or is read by alpha. A black and white mask is
      never inverted.
    """
    values, colours = _values(image), image.mode not in {"1", "L"}
    layers = _alpha(image, values)
    if layers is not None:
        return _by_border(layers, layers != 0, "transparency", certain=True)
    marked = values != 0
    if image.mode in {"L", "P"} and (found := _numbered_defects(values)) is not None:
        return ParsedMask(found, f"{VOID} is read as unlabelled")
    first = image.mode == "P" and _border_value(np.asarray(image)) == 0
    certain = bool(marked.all()) or (colours and first)
    return _by_border(values, marked, "value", certain=certain)


def _values(image: Image.Image) -> np.ndarray:
    """One integer per pixel (H, W): grey value, palette index or packed colour; 0 is black."""
    coloured = image.mode == "P" and any((image.getpalette() or [0])[:3])  # index 0 is not black
    if coloured or image.mode in {"CMYK", "YCbCr"}:  # zero is not black in these modes
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 2:  # noqa: PLR2004
        return values
    channels = values[:, :, : values.shape[2] - (image.mode in {"LA", "PA", "RGBA"})]
    weights = 256 ** np.arange(channels.shape[2], dtype=np.uint32)
    return (channels.astype(np.uint32) * weights).sum(axis=2, dtype=np.uint32)


def _alpha(image: Image.Image, values: np.ndarray) -> np.ndarray | None:
    """The alpha channel (H, W) if it varies and the colour does not, else ``None``."""
    if image.mode not in {"LA", "PA", "RGBA"} or values.min() != values.max():
        return None
    alpha = np.asarray(image.getchannel("A"))
    return alpha if alpha.min() != alpha.max() else None


def _numbered_defects(values: np.ndarray) -> np.ndarray | None:
    """Defects of a mask with class numbers and `VOID`: bool (H, W); ``None`` for other masks."""
    numbered = (values > 0) & (values <= MAX_CLASS)
    void = values == VOID
    marked = np.count_nonzero(values)
    few = np.count_nonzero(numbered) < max(1, MIN_CLASS_SHARE * marked)
    if few or not void.any() or marked != np.count_nonzero(numbered | void):
        return None
    return numbered


def _by_border(values: np.ndarray, marked: np.ndarray, name: str, *, certain: bool) -> ParsedMask:
    """Apply the third rule of `parse_mask`; without `certain`, zero stays the background."""
    background = _border_value(values)
    if not certain or not background or marked.mean() <= HALF:
        return ParsedMask(marked)
    others = values != background
    if not 0 < others.mean() <= HALF:
        return ParsedMask(marked)
    return ParsedMask(
        others, f"the {name} that covers most of its border is read as the background"
    )


def _border_value(values: np.ndarray) -> int | None:
    """The value of more than half of the outermost pixels; ``None`` if there is none."""
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    found, counts = np.unique(border, return_counts=True)
    return int(found[counts.argmax()]) if counts.max() > HALF * len(border) else None
