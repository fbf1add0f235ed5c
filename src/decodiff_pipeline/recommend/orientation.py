"""Whether images may be mirrored or turned: whether mirrored ones look like the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SIDE = 32  # pixels of the thumbnails
LEAST = 8  # images; fewer say nothing
AS_NEAR = 1.1  # times the distance among the images themselves
FLAT = 1e-9
# Parameter of `AugmentationConfig`: what it does to (N, SIDE, SIDE).
TRANSFORMS = {
    "horizontal_flip": np.s_[:, :, ::-1],
    "vertical_flip": np.s_[:, ::-1],
    "rotate_180": np.s_[:, ::-1, ::-1],
}


def flip_ratios(images: Iterable[Image.Image]) -> dict[str, float] | None:
    """How far mirrored images are from the others, beside how far the images are as they are.

    With d the Euclidean distance of grey thumbnails of 32x32 pixels, mean and contrast taken out,
    and T a mirror: median over i of min over j ≠ i of d(T(xᵢ), xⱼ), over the median of the same
    without T. It is about 1 where the orientation varies, or where the object has that symmetry,
    and much larger where all images are the same way up.

    Returns:
        A ratio for each of `TRANSFORMS`; None where there are fewer than 8 images.
    """
    small = np.array([_thumbnail(image) for image in images])
    if len(small) < LEAST:
        return None
    plain = _standardised(small)
    among = max(_nearest(plain, plain), FLAT)
    return {
        name: round(_nearest(_standardised(small[turned]), plain) / among, 2)
        for name, turned in TRANSFORMS.items()
    }


def allowed(ratios: Sequence[dict[str, float] | None], transform: str) -> bool:
    """Whether the images of every category may be transformed so."""
    return all(one is not None and one[transform] <= AS_NEAR for one in ratios)


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)


def _standardised(small: np.ndarray) -> np.ndarray:
    """(N, SIDE²), mean 0 and norm 1 each; 0 of an image without any structure."""
    flat = small.reshape(len(small), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), FLAT)


def _nearest(images: np.ndarray, others: np.ndarray) -> float:
    """Median distance to the nearest other image; the image itself does not count."""
    likeness = images @ others.T
    np.fill_diagonal(likeness, -1.0)
    return float(np.median(np.sqrt(np.maximum(0, 2 - 2 * likeness.max(axis=1)))))
