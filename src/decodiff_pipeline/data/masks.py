"""What of a mask is defect.

Zero is the background, and whatever is not zero is defect, wherever that marks no more than half
of the image. Where it marks more, or marks by transparency, the value that covers most of the
border may be the background instead: `parse_mask` has the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

VOID = 255  # of masks that number their defects: pixels that are not labelled
MAX_CLASS = 20  # the largest number of a defect beside `VOID`
MIN_CLASS_SHARE = 0.05  # of the marked pixels that carry such a number
HALF = 0.5


class ParsedMask(NamedTuple):
    """A mask as it is read."""

    defect: np.ndarray  # bool (H, W), True on the defect
    note: str = ""  # what was taken for background that is not zero; "" for nothing


def parse_mask(image: Image.Image) -> ParsedMask:
    """Tells defect from background in a decoded mask.

    - Any channel that is not zero is defect; of a palette the index counts where index 0 is
      black, else the colour. Alpha counts where the colours are the same everywhere.
    - 255 beside defects numbered 1 to 20 is the unlabelled border, as in Pascal VOC: it is
      background.
    - Where that marks more than half of the picture, the value that covers most of the border is
      the background, if it leaves at most half marked and the mask has no black, a palette whose
      first colour is that value, or marks by alpha. A plain black and white mask stays as it is.
    """
    values, colours = _values(image), image.mode not in {"1", "L"}
    layers = _alpha(image, values)
    if layers is not None:
        return _by_border(layers, layers != 0, "transparency", certain=True)
    marked = values != 0
    if image.mode in {"L", "P"} and (found := _numbered_defects(values)) is not None:
        return ParsedMask(found, f"{VOID} is read as the border that nobody judged")
    first = image.mode == "P" and _border_value(np.asarray(image)) == 0
    certain = bool(marked.all()) or (colours and first)
    return _by_border(values, marked, "value", certain=certain)


def _values(image: Image.Image) -> np.ndarray:
    """One integer a pixel (H, W): grey value, palette index, or colours in one; 0 is black."""
    coloured = image.mode == "P" and any((image.getpalette() or [0])[:3])  # index 0 is not black
    if coloured or image.mode in {"CMYK", "YCbCr"}:  # whose zeros are not black either
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 2:  # noqa: PLR2004
        return values
    channels = values[:, :, : values.shape[2] - (image.mode in {"LA", "PA", "RGBA"})]
    weights = 256 ** np.arange(channels.shape[2], dtype=np.uint32)
    return (channels.astype(np.uint32) * weights).sum(axis=2, dtype=np.uint32)


def _alpha(image: Image.Image, values: np.ndarray) -> np.ndarray | None:
    """The alpha channel where it alone can say what is defect."""
    if image.mode not in {"LA", "PA", "RGBA"} or values.min() != values.max():
        return None
    alpha = np.asarray(image.getchannel("A"))
    return alpha if alpha.min() != alpha.max() else None


def _numbered_defects(values: np.ndarray) -> np.ndarray | None:
    """The numbered defects without the border around them; ``None`` where nothing is numbered."""
    numbered = (values > 0) & (values <= MAX_CLASS)
    void = values == VOID
    marked = np.count_nonzero(values)
    few = np.count_nonzero(numbered) < max(1, MIN_CLASS_SHARE * marked)
    if few or not void.any() or marked != np.count_nonzero(numbered | void):
        return None
    return numbered


def _by_border(values: np.ndarray, marked: np.ndarray, name: str, *, certain: bool) -> ParsedMask:
    """Takes the value of most of the border for background where zero cannot be it."""
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
    """The value of more than half of the outermost pixels."""
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    found, counts = np.unique(border, return_counts=True)
    return int(found[counts.argmax()]) if counts.max() > HALF * len(border) else None
