"""The 8-connected regions of a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def defective_pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Which pixels are defective, and what share each is of its region.

    Args:
        mask: bool (H, W).

    Returns:
        Flat indices int64 (P,), ascending; float64 (P,), 1 / pixels of the region; how many
        regions there are.
    """
    found = np.flatnonzero(mask)
    if not len(found):
        return found, np.empty(0), 0
    # Labelling takes longer than all the rest, so only the box around the defects is labelled.
    columns = np.flatnonzero(mask.any(0))
    left, width = columns[0], mask.shape[1]
    rows = slice(found[0] // width, found[-1] // width + 1)
    box = np.ascontiguousarray(mask[rows, left : columns[-1] + 1])
    labels, count = ndimage.label(box, structure=EIGHT_CONNECTED)
    region = labels[box]
    return found, (1.0 / np.bincount(region)[1:])[region - 1], count
