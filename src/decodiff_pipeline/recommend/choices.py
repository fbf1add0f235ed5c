"""Chooses the values of parameters by what the images are like, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.geometry import square_count
from decodiff_pipeline.visibility.measure import model_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from decodiff_pipeline.deco.config import PreprocessConfig

SMALL, LARGE = 128, 256  # sides of the model's input
LEAST_PIXELS = 4  # of the model's input, along a defect that is to be visible
SAME_SHAPE = 1.25  # ratio of aspect ratios up to which images have one shape
LONG = 3.0  # longer over shorter side from which on a whole image loses too much of the longer one
MOST_TILES = 16
DETAIL_KEPT = 0.5  # share of the gradient's energy that reducing an image may leave at least
WANTED_VIEWS = 600  # training images with their views
FEWEST_VIEWS, MOST_VIEWS = 3, 12
FEWEST_STEPS, MOST_STEPS = 400, 3000
ON_A_GPU, ON_A_PROCESSOR = "S", "nano"
THUMBNAIL = 32  # pixels of the thumbnails
FEWEST_IMAGES = 8  # fewer say nothing about orientation
AS_NEAR = 1.1  # times the distance among the images themselves
FLAT = 1e-9
# Parameter of `AugmentationConfig`: what it does to (N, THUMBNAIL, THUMBNAIL).
TRANSFORMS = {
    "horizontal_flip": np.s_[:, :, ::-1],
    "vertical_flip": np.s_[:, ::-1],
    "rotate_180": np.s_[:, ::-1, ::-1],
}


@dataclass(frozen=True)
class Choice:
    """A value and why it is that."""

    value: Any
    why: str  # the reason, a clause


@dataclass(frozen=True)
class Facts:
    """What is known of the images."""

    sizes: Sequence[tuple[int, int]]  # width and height of each good image in pixels
    train: int  # good images to train on
    # Side in pixels that a tenth of the masked defects do not reach; None without.
    mask_side: float | None
    detail: float  # share of the gradient's energy left where images are reduced to 128 pixels
    flips: Sequence[dict[str, float] | None]  # as `flip_ratios`, of each category


def choose_fit(sizes: Sequence[tuple[int, int]]) -> Choice:
    """``stretch``, ``letterbox`` or ``tile``, by the shapes of the images."""
    aspects = np.array([width / height for width, height in sizes])
    ratio = float(np.median(np.maximum(aspects, 1 / aspects)))
    low, high = np.quantile(aspects, (0.05, 0.95))
    if ratio > LONG:
        why = (
            f"images are {ratio:.1f} times as long as wide, and a square would hold little of that"
        )
        return Choice("tile", why)
    if high / low > SAME_SHAPE:
        why = f"shapes differ (width/height {low:.2f} to {high:.2f}) and must not be distorted"
        return Choice("letterbox", why)
    return Choice("stretch", f"all have about one shape (width/height {np.median(aspects):.2f})")


def choose_geometry(
    facts: Facts, base: PreprocessConfig
) -> tuple[PreprocessConfig, dict[str, str]]:
    """Size and fit by the smallest masked defects, or by the detail that reducing leaves.

    A defect needs 4 pixels of the model's input: about where a contrast of 32 grey levels becomes
    visible (docs/visibility.md).

    Returns:
        The geometry, and the reasons by the names of its fields.
    """
    fit = choose_fit(facts.sizes)
    size = _median_size(facts.sizes)
    options = [
        replace(base, fit=fit.value, resize=side, image_size=side) for side in (SMALL, LARGE)
    ]
    if facts.mask_side is None:
        kept = (
            f"reducing an image to {SMALL} pixels leaves {100 * facts.detail:.0f} % of its detail"
        )
        coarse = facts.detail < DETAIL_KEPT and max(size) > SMALL
        return _with_reasons(options[coarse], kept + "; there are no masks to go by", fit)
    smallest = f"a tenth of the masked defects have less than {facts.mask_side:.0f} px"
    for option in options:
        scale = min(model_scale(size, option))
        if scale * facts.mask_side >= LEAST_PIXELS or scale >= 1:
            why = f"{smallest}, which are {scale * facts.mask_side:.1f} pixels at this size"
            why += f" ({LEAST_PIXELS} are wanted)" if scale < 1 else "; images have no more to show"
            return _with_reasons(option, why, fit)
    return _tiled(facts.mask_side, size, options, smallest)


def _tiled(
    side: float, size: tuple[int, int], options: Sequence[PreprocessConfig], smallest: str
) -> tuple[PreprocessConfig, dict[str, str]]:
    """Tiles just fine enough, as far as the images have pixels and the tiles stay few."""
    shorter = min(size)
    tiled = replace(options[0], fit="tile")
    wanted = max(SMALL, min(shorter, ceil(LEAST_PIXELS / side * shorter)))
    fine = [
        option
        for resize in range(SMALL, wanted + 1)
        if square_count(size, option := replace(tiled, resize=resize)) <= MOST_TILES
    ]
    best = fine[-1] if fine else options[1]
    if min(model_scale(size, best)) <= min(model_scale(size, options[1])):
        why = f"{smallest}; to show them better, more than {MOST_TILES} tiles would be needed"
        fit = Choice(options[1].fit, "the whole image, for the same reason")
        return _with_reasons(options[1], why, fit)
    pixels = side * min(model_scale(size, best))
    count = square_count(size, best)
    fit = Choice(
        "tile", f"{LARGE} pixels for the whole image would not show them; {count} tiles do"
    )
    return _with_reasons(best, f"{smallest}, which are {pixels:.1f} pixels at this size", fit)


def _with_reasons(
    geometry: PreprocessConfig, why: str, fit: Choice
) -> tuple[PreprocessConfig, dict[str, str]]:
    side = "the shorter side, which is then cut into tiles" if geometry.fit == "tile" else "no crop"
    return geometry, {"image_size": why, "resize": side, "fit": fit.why}


def choose_views(facts: Facts, geometry: PreprocessConfig) -> Choice:
    """How many views of every training image are cached."""
    tiles = square_count(_median_size(facts.sizes), geometry)
    views = min(MOST_VIEWS, max(FEWEST_VIEWS, ceil(WANTED_VIEWS / max(1, facts.train))))
    if tiles > views:
        return Choice(tiles, f"each view of an image is one of its {tiles} tiles")
    return Choice(views, f"{facts.train} training images, {views * facts.train} with their views")


def choose_flips(facts: Facts) -> dict[str, Choice]:
    """Which mirrored images are normal ones, by the parameter of the augmentation."""
    chosen = {}
    for name in TRANSFORMS:
        known = [one[name] for one in facts.flips if one is not None]
        if len(known) < len(facts.flips):
            chosen[name] = Choice(False, "too few good images to tell whether orientation varies")
            continue
        fits = max(known) <= AS_NEAR
        why = f"turned so, images are {max(known):.1f} times as far from the others as before"
        judged = "orientation varies or does not show" if fits else "all are seen one way"
        chosen[name] = Choice(fits, f"{why}: {judged} (the limit is {AS_NEAR})")
    return chosen


def choose_preset() -> Choice:
    """The size of the network by the device."""
    import torch

    if resolve_device() == "cuda":
        return Choice(ON_A_GPU, f"this machine has a GPU, {torch.cuda.get_device_name()}")
    return Choice(ON_A_PROCESSOR, "this machine has no GPU")


def choose_steps(minutes: float, seconds: float) -> Choice:
    """Steps that fit into the minutes, within 400 and 3,000."""
    steps = int(min(MOST_STEPS, max(FEWEST_STEPS, 60 * minutes / seconds)))
    steps -= steps % 50
    taken = steps * seconds / 60
    why = (
        f"about {taken:.0f} minutes on this machine with nothing else to do, {seconds:.2g} s a step"
    )
    return Choice(steps, why)


def detail_kept(image: Image.Image) -> float:
    """Share of the luma gradient's energy that is left where the longer side has 128 pixels."""
    grey = image.convert("L")
    scale = SMALL / max(grey.size)
    if scale >= 1:
        return 1.0
    width, height = (max(2, round(length * scale)) for length in grey.size)
    small = grey.resize((width, height), Image.Resampling.BICUBIC)
    back = small.resize(grey.size, Image.Resampling.BICUBIC)
    before, after = _energy(grey), _energy(back)
    return min(1.0, after / before) if before > 0 else 1.0


def _energy(grey: Image.Image) -> float:
    pixels = np.asarray(grey, np.float64)
    return float(sum(np.square(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)))


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
    if len(small) < FEWEST_IMAGES:
        return None
    plain = _standardised(small)
    among = max(_nearest(plain, plain), FLAT)
    return {
        name: round(_nearest(_standardised(small[turned]), plain) / among, 2)
        for name, turned in TRANSFORMS.items()
    }


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(
        image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64
    )


def _standardised(small: np.ndarray) -> np.ndarray:
    """(N, 1024), mean 0 and norm 1 each; 0 of an image without any structure."""
    flat = small.reshape(len(small), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), FLAT)


def _nearest(images: np.ndarray, others: np.ndarray) -> float:
    """Median distance to the nearest other image; the image itself does not count."""
    likeness = images @ others.T
    np.fill_diagonal(likeness, -1.0)
    return float(np.median(np.sqrt(np.maximum(0, 2 - 2 * likeness.max(axis=1)))))


def _median_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    width, height = np.median(np.array(sizes), axis=0)
    return round(float(width)), round(float(height))
