"""Augmented views of an image, drawn before the autoencoder sees it."""

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
    """What a normal image may undergo and still be normal.

    The defaults are the paper's for MVTec AD.

    Attributes:
        max_translation: Largest shift in pixels of the resized image, along each axis; what
            enters at its border repeats the outermost pixels.
        translation_probability: Share of the views that are shifted.
        rotate_180: Turn half of the views upside down (the paper does so for VisA).
        horizontal_flip: Mirror half of the views left to right.
        vertical_flip: Mirror half of the views top to bottom.
        seed: Another seed gives other views.
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
    """One view of an image, at the model's input size, uint8 (image_size, image_size, 3).

    Of a tiled image it is one tile, the next one in the next view: the views spread over the
    tiles, and the images of which there is one view over all places.

    Args:
        identity: What tells this image from others, such as its SHA-256; with ``view`` and the
            seed it decides what is drawn.
        view: Number of the view; 0 is the image itself, or a tile of it, as it is.
    """
    whole = resize_and_pad(image, geometry)
    if view:
        whole = _draw(whole, augmentation, _generator(augmentation.seed, identity, view))
    return square(whole, image.size, geometry, _first_tile(identity) + view)


def plain_square(image: Image.Image, geometry: PreprocessConfig, identity: str) -> np.ndarray:
    """View 0 of :func:`augmented_square`, whatever the augmentation."""
    return augmented_square(image, geometry, AugmentationConfig(), identity, 0)


def square_inside(
    image: Image.Image, geometry: PreprocessConfig, identity: str, region: Region | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """:func:`plain_square` as the model sees it, and what counts, bool (S, S); ``None`` for all.

    Of a tiled image it is one of the tiles that show the region.
    """
    if region is None:
        return plain_square(image, geometry, identity), None
    inside = region.in_squares(image.size, geometry)
    usable = np.flatnonzero(inside.any((1, 2)))
    # Of an identity of pixels the SHA-256 alone: the bits behind it decide on no tile.
    first = _first_tile(identity.partition(" ")[0])
    number = int(usable[first % len(usable)])
    found = square(resize_and_pad(image, geometry), image.size, geometry, number)
    return fill(found, inside[number]) if region.filled else found, inside[number]


def plain_inside(
    region: Region, size: tuple[int, int], geometry: PreprocessConfig, identity: str
) -> np.ndarray:
    """Which pixels of the :func:`plain_square` of an image of this size count: bool (S, S)."""
    squares = region.in_squares(size, geometry)
    return squares[_first_tile(identity) % len(squares)]


def _first_tile(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


def _draw(
    whole: np.ndarray, augmentation: AugmentationConfig, random: np.random.Generator
) -> np.ndarray:
    # Every number is drawn whether it is used or not: switching one augmentation on leaves the
    # others as they were.
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
