"""Augmented views of an image at the size of the model's input, for the autoencoder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from decodiff_pipeline.deco.geometry import resize_and_pad, square
from decodiff_pipeline.deco.regions import fill

if TYPE_CHECKING:
    from PIL import Image

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.regions import Region


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AugmentationConfig:
    """Augmentations of good training images; they must keep a good image good.

    The defaults are the paper's for MVTec AD.

    Attributes:
        max_translation: Largest shift along each axis, in pixels of the resized image. Pixels
            shifted in at the border repeat the outermost ones.
        translation_probability: Share of the views that are shifted.
        rotate_180: Rotate half of the views by 180° (the paper does so for VisA).
        horizontal_flip: Mirror half of the views left to right.
        vertical_flip: Mirror half of the views top to bottom.
        seed: Seed of the views.
    """

    max_translation: int = Field(default=4, ge=0)
    translation_probability: float = Field(default=0.5, ge=0, le=1)
    rotate_180: bool = False
    horizontal_flip: bool = False
    vertical_flip: bool = False
    seed: int = Field(default=0, ge=0)


def augmented_square(
    image: Image.Image,
    geometry: PreprocessConfig,
    augmentation: AugmentationConfig,
    identity: str,
    view: int,
) -> np.ndarray:
    """One view of an image at the model's input size, uint8 (image_size, image_size, 3).

    For a tiled image, a view is one tile. The first tile depends on ``identity``, and each further
    view takes the next tile.

    Args:
        identity: Unique identifier of the image, such as its SHA-256. Together with ``view`` and
            the seed it determines the augmentation.
        view: Number of the view; view 0 is not augmented.
    """
    whole = resize_and_pad(image, geometry)
    if view:
        whole = _augment(whole, augmentation, _generator(augmentation.seed, identity, view))
    return square(whole, image.size, geometry, _first_tile(identity) + view)


def plain_square(image: Image.Image, geometry: PreprocessConfig, identity: str) -> np.ndarray:
    """View 0 of :func:`augmented_square`, which has no augmentation."""
    return augmented_square(image, geometry, AugmentationConfig(), identity, 0)


def square_inside(
    image: Image.Image, geometry: PreprocessConfig, identity: str, region: Region | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The model's input, uint8 (S, S, 3), and the mask of the region in it, bool (S, S).

    Without a region, the input is :func:`plain_square` and the mask is ``None``. For a tiled image,
    the input is one of the tiles that contain part of the region.
    """
    if region is None:
        return plain_square(image, geometry, identity), None
    inside = region.in_squares(image.size, geometry)
    usable = np.flatnonzero(inside.any((1, 2)))
    # The identity may be a SHA-256 and a bit depth; only the SHA-256 decides the tile.
    first = _first_tile(identity.partition(" ")[0])
    number = int(usable[first % len(usable)])
    found = square(resize_and_pad(image, geometry), image.size, geometry, number)
    return fill(found, inside[number]) if region.filled else found, inside[number]


def plain_inside(
    region: Region, size: tuple[int, int], geometry: PreprocessConfig, identity: str
) -> np.ndarray:
    """Mask of the region in the :func:`plain_square` of an image: bool (S, S), True inside."""
    squares = region.in_squares(size, geometry)
    return squares[_first_tile(identity) % len(squares)]


def _first_tile(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


def _augment(
    whole: np.ndarray, augmentation: AugmentationConfig, random: np.random.Generator
) -> np.ndarray:
    # All random numbers are drawn, used or not: enabling one augmentation does not change the
    # others.
    shift_it, turn, mirror, flip = random.random(4)
    reach = augmentation.max_translation
    down, right = random.integers(-reach, reach + 1, size=2)
    if shift_it < augmentation.translation_probability:
        padded = np.pad(whole, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        height, width = whole.shape[:2]
        whole = padded[reach + down :, reach + right :][:height, :width]
    if augmentation.rotate_180 and turn < 1 / 2:
        whole = whole[::-1, ::-1]
    if augmentation.horizontal_flip and mirror < 1 / 2:
        whole = whole[:, ::-1]
    if augmentation.vertical_flip and flip < 1 / 2:
        whole = whole[::-1]
    return whole


def _generator(seed: int, identity: str, view: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{identity}:{view}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
