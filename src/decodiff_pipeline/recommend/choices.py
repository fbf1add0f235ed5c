"""Chooses values of parameters from properties of the images, each with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.geometry import square_count
from decodiff_pipeline.visibility.fidelity import gradient_energy
from decodiff_pipeline.visibility.measure import model_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from decodiff_pipeline.deco.config import PreprocessConfig

SMALL, LARGE = 128, 256  # sides of the model's input
LEAST_PIXELS = 4  # side of the smallest visible defect in pixels of the model's input
SAME_SHAPE = 1.25  # largest ratio of aspect ratios of images with the same shape
LONG = 3.0  # aspect ratio above which images are tiled
MOST_TILES = 16
DETAIL_KEPT = 0.5  # smallest share of the gradient energy at the small input size
WANTED_VIEWS = 600  # training images times views
FEWEST_VIEWS, MOST_VIEWS = 3, 12
FEWEST_STEPS, MOST_STEPS = 400, 3000
ON_A_GPU, ON_A_PROCESSOR = "S", "nano"
THUMBNAIL = 32  # side of the thumbnails in pixels
FEWEST_IMAGES = 8  # for a test of the orientation
AS_NEAR = 1.1  # largest ratio of `flip_ratios` with which a flip is used
FLAT = 1e-9
# Parameter of `AugmentationConfig` → index into (N, THUMBNAIL, THUMBNAIL).
TRANSFORMS = {
    "horizontal_flip": np.s_[:, :, ::-1],
    "vertical_flip": np.s_[:, ::-1],
    "rotate_180": np.s_[:, ::-1, ::-1],
}


@dataclass(frozen=True)
class Choice:
    """A value and its reason."""

    value: Any
    why: str  # a clause


@dataclass(frozen=True)
class Facts:
    """Properties of the images."""

    sizes: Sequence[tuple[int, int]]  # width and height of each good image in pixels
    train: int  # number of good training images
    mask_side: float | None  # 10 % quantile of the defects' sides in pixels; None without masks
    detail: float  # median of `detail_kept`
    flips: Sequence[dict[str, float] | None]  # `flip_ratios` of each category


def choose_fit(sizes: Sequence[tuple[int, int]]) -> Choice:
    """Choose ``stretch``, ``letterbox`` or ``tile`` by the aspect ratios of the images."""
    aspects = np.array([width / height for width, height in sizes])
    ratio = float(np.median(np.maximum(aspects, 1 / aspects)))
    low, high = np.quantile(aspects, (0.05, 0.95))
    if ratio > LONG:
        why = f"images are {ratio:.1f} times as long as wide, so one square would lose resolution"
        return Choice("tile", why)
    if high / low > SAME_SHAPE:
        why = f"shapes differ (width/height {low:.2f} to {high:.2f}) and must not be distorted"
        return Choice("letterbox", why)
    return Choice("stretch", f"all have a similar shape (width/height {np.median(aspects):.2f})")


def choose_geometry(
    facts: Facts, base: PreprocessConfig
) -> tuple[PreprocessConfig, dict[str, str]]:
    """Choose input size and fit by the smallest defects with masks, or by `detail_kept`.

    A defect must have `LEAST_PIXELS` pixels of the model's input, at which a contrast of 32 grey
    levels becomes visible (docs/visibility.md).

    Returns:
        The geometry, and the reasons by field name.
    """
    fit = choose_fit(facts.sizes)
    size = _median_size(facts.sizes)
    options = [
        replace(base, fit=fit.value, resize=side, image_size=side) for side in (SMALL, LARGE)
    ]
    if facts.mask_side is None:
        why = f"at {SMALL} pixels an image keeps {100 * facts.detail:.0f} % of its detail"
        use_large = facts.detail < DETAIL_KEPT and max(size) > SMALL
        return _with_reasons(options[use_large], why + "; there are no masks", fit)
    smallest = f"a tenth of the defects with masks are smaller than {facts.mask_side:.0f} px"
    for option in options:
        scale = min(model_scale(size, option))
        if scale * facts.mask_side >= LEAST_PIXELS or scale >= 1:
            why = f"{smallest}, or {scale * facts.mask_side:.1f} pixels at this size"
            why += f" ({LEAST_PIXELS} needed)" if scale < 1 else "; the full resolution is used"
            return _with_reasons(option, why, fit)
    return _tiled(facts.mask_side, size, options, smallest)


def _tiled(
    side: float, size: tuple[int, int], options: Sequence[PreprocessConfig], smallest: str
) -> tuple[PreprocessConfig, dict[str, str]]:
    """The coarsest tiles that show the defects, with at most `MOST_TILES` per image."""
    shorter = min(size)
    tiled = replace(options[0], fit="tile")
    target = max(SMALL, min(shorter, ceil(LEAST_PIXELS / side * shorter)))
    possible = [
        option
        for resize in range(SMALL, target + 1)
        if square_count(size, option := replace(tiled, resize=resize)) <= MOST_TILES
    ]
    best = possible[-1] if possible else options[1]
    if min(model_scale(size, best)) <= min(model_scale(size, options[1])):
        why = f"{smallest}; a higher resolution would need more than {MOST_TILES} tiles"
        fit = Choice(options[1].fit, "the whole image, for the same reason")
        return _with_reasons(options[1], why, fit)
    pixels = side * min(model_scale(size, best))
    count = square_count(size, best)
    fit = Choice(
        "tile", f"{LARGE} pixels for the whole image would not show them; {count} tiles do"
    )
    return _with_reasons(best, f"{smallest}, or {pixels:.1f} pixels at this size", fit)


def _with_reasons(
    geometry: PreprocessConfig, why: str, fit: Choice
) -> tuple[PreprocessConfig, dict[str, str]]:
    side = "the shorter side, which is then cut into tiles" if geometry.fit == "tile" else "no crop"
    return geometry, {"image_size": why, "resize": side, "fit": fit.why}


def choose_views(facts: Facts, geometry: PreprocessConfig) -> Choice:
    """Choose the number of cached views per training image."""
    tiles = square_count(_median_size(facts.sizes), geometry)
    views = min(MOST_VIEWS, max(FEWEST_VIEWS, ceil(WANTED_VIEWS / max(1, facts.train))))
    if tiles > views:
        return Choice(tiles, f"each view of an image is one of its {tiles} tiles")
    return Choice(views, f"{facts.train} training images, {views * facts.train} views in total")


def choose_flips(facts: Facts) -> dict[str, Choice]:
    """Choose the augmentations by whether flipped images look like other good images."""
    choices = {}
    for name in TRANSFORMS:
        ratios = [ratio[name] for ratio in facts.flips if ratio is not None]
        if len(ratios) < len(facts.flips):
            choices[name] = Choice(False, "too few good images to tell whether orientation varies")
            continue
        use = max(ratios) <= AS_NEAR
        why = f"flipped images are {max(ratios):.1f} times as far from the others as before"
        meaning = "orientation varies or is invisible" if use else "orientation is fixed"
        choices[name] = Choice(use, f"{why}: {meaning} (limit {AS_NEAR})")
    return choices


def choose_preset() -> Choice:
    """Choose the size of the network by the device."""
    import torch

    if resolve_device() == "cuda":
        return Choice(ON_A_GPU, f"this machine has a GPU, {torch.cuda.get_device_name()}")
    return Choice(ON_A_PROCESSOR, "this machine has no GPU")


def choose_steps(minutes: float, seconds: float) -> Choice:
    """Choose the number of steps by the training time, within 400 and 3,000.

    Args:
        minutes: Intended training time.
        seconds: Time per step.
    """
    steps = int(min(MOST_STEPS, max(FEWEST_STEPS, 60 * minutes / seconds)))
    steps -= steps % 50
    why = f"about {steps * seconds / 60:.0f} minutes on this machine when idle"
    return Choice(steps, f"{why}, {seconds:.2g} s per step")


def detail_kept(image: Image.Image) -> float:
    """Share (0…1) of the luma's gradient energy after scaling the longer side to 128 pixels."""
    grey = image.convert("L")
    scale = SMALL / max(grey.size)
    if scale >= 1:
        return 1.0
    width, height = (max(2, round(length * scale)) for length in grey.size)
    small = grey.resize((width, height), Image.Resampling.BICUBIC)
    enlarged = small.resize(grey.size, Image.Resampling.BICUBIC)
    before, after = (gradient_energy(np.asarray(i, np.float64)) for i in (grey, enlarged))
    return min(1.0, after / before) if before > 0 else 1.0


def flip_ratios(images: Iterable[Image.Image]) -> dict[str, float] | None:
    """Distance of flipped images to the other images, relative to that of the original images.

    With d the Euclidean distance of standardised 32x32 grey thumbnails and T a flip: the median
    over i of min over j ≠ i of d(T(xᵢ), xⱼ), divided by the same median without T. The ratio is
    about 1 if the orientation varies or the object has this symmetry, and much larger if the
    orientation is fixed.

    Returns:
        The ratio of each of `TRANSFORMS`; None for fewer than 8 images.
    """
    thumbnails = np.array([_thumbnail(image) for image in images])
    if len(thumbnails) < FEWEST_IMAGES:
        return None
    originals = _standardised(thumbnails)
    distance = max(_nearest(originals, originals), FLAT)
    return {
        name: round(_nearest(_standardised(thumbnails[index]), originals) / distance, 2)
        for name, index in TRANSFORMS.items()
    }


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(
        image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64
    )


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 1024) with mean 0 and norm 1 per row; zeros for an image without structure."""
    flat = thumbnails.reshape(len(thumbnails), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), FLAT)


def _nearest(images: np.ndarray, others: np.ndarray) -> float:
    """Median distance to the nearest other image, excluding the image itself."""
    similarity = images @ others.T
    np.fill_diagonal(similarity, -1.0)
    return float(np.median(np.sqrt(np.maximum(0, 2 - 2 * similarity.max(axis=1)))))


def _median_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    width, height = np.median(np.array(sizes), axis=0)
    return round(float(width)), round(float(height))
