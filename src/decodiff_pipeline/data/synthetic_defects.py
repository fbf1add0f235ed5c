"""Defects that nobody had to label: good images with a region replaced, and where.

They stand in for real defects wherever something is chosen before one has been seen: clip limits,
weights, the image score, the moment to stop training. They are no measure of how well real
defects are found.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    Drawing = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]

# Part of every key a synthetic latent is cached by: raise it with any change of what is drawn.
VERSION = 2
# Share of the image, before the invisible part of a region is dropped.
SMALLEST, LARGEST = 0.002, 0.1
VISIBLE = 12  # grey levels of 255, in the channel that changes most
LEAST_VISIBLE = 0.0008  # share of the image: 13 pixels of 128²
ATTEMPTS = 20
TILES = 4


def synthetic_defect(
    square: np.ndarray, identity: str, number: int, source: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Put one defect into a good image: a function of the arguments alone.

    Half of the defects are ragged regions of thresholded Perlin noise (Zavrtanik et al., "DRAEM",
    ICCV 2021), half are rectangles and thin scars at any angle (Li et al., "CutPaste", CVPR
    2021). They are filled with another place of the image, with another image, with a procedural
    texture or with a lighter or darker shade of what is there, at an opacity of 0.3 to 1.

    Args:
        square: The good image at the model's input size, uint8 (S, S, 3).
        identity: What tells this image from others, such as its SHA-256.
        number: Which of its defects; there is no last one.
        source: Another good image to take textures from, uint8 (S, S, 3); by default ``square``.

    Returns:
        The image with the defect, uint8 (S, S, 3), and its mask, bool (S, S): True where some
        channel changed by at least 12 of 255 grey levels. The mask is never empty.
    """
    random = _generator(identity, number)
    good = square.astype(np.float32)
    other = good if source is None else source.astype(np.float32)
    for _ in range(ATTEMPTS):
        region = _ragged(random, len(square)) if random.random() < 1 / 2 else _strip(random, square)
        texture = TEXTURES[random.integers(len(TEXTURES))](random, good, other)
        opacity = random.uniform(0.3, 1.0)
        image, mask = _blended(good, texture, opacity * _softened(random, region))
        if mask.mean() >= LEAST_VISIBLE:
            return image, mask
    # An image so uniform that nothing taken from it shows.
    return _blended(good, (good + 128) % 256, _ragged(random, len(square)).astype(np.float32))


def _generator(identity: str, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{VERSION}:{identity}:{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _area(random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST))))


def _ragged(random: np.random.Generator, side: int) -> np.ndarray:
    """A region around some place, as large as drawn, with the outline of Perlin noise."""
    area = _area(random)
    noise = perlin_noise(random, side, tuple(2 ** random.integers(1, 5, size=2)))
    y, x = np.ogrid[:side, :side]
    centre_y, centre_x = random.uniform(0, side, size=2)
    reach = 2 * area * side**2 * random.uniform(0.5, 2.0)
    score = noise / noise.std() - ((y - centre_y) ** 2 + (x - centre_x) ** 2) / reach
    return score >= np.quantile(score, 1 - area)


def perlin_noise(random: np.random.Generator, side: int, cells: tuple[int, int]) -> np.ndarray:
    """Gradient noise (Perlin, "An image synthesizer", SIGGRAPH 1985; smoothstep of 2002).

    Args:
        random: Source of the gradients.
        side: Of the square, in pixels.
        cells: How many cells of the lattice the square spans, down and across.

    Returns:
        float64 (side, side), about within -1…1, mean about 0.
    """
    angles = random.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    places = [(np.arange(side) + 0.5) * count / side for count in cells]
    (top, left), (dy, dx) = zip(*((p.astype(int), p % 1) for p in places), strict=True)
    fade_y, fade_x = (d**3 * (d * (6 * d - 15) + 10) for d in (dy, dx))
    total = np.zeros((side, side))
    for down in (0, 1):
        for right in (0, 1):
            angle = angles[np.ix_(top + down, left + right)]
            slope = np.sin(angle) * (dy - down)[:, None] + np.cos(angle) * (dx - right)[None, :]
            weight_y, weight_x = (
                f if one else 1 - f for f, one in ((fade_y, down), (fade_x, right))
            )
            total += slope * weight_y[:, None] * weight_x[None, :]
    return total


def _strip(random: np.random.Generator, square: np.ndarray) -> np.ndarray:
    """A rectangle at any angle: a patch, or a scar of a few pixels' width."""
    side = len(square)
    if random.random() < 1 / 2:
        length, width = side * random.uniform(0.1, 0.5), random.uniform(1.5, max(2.5, side / 32))
    else:
        area, ratio = _area(random) * side**2, random.uniform(1, 3)
        length, width = np.sqrt(area * ratio), np.sqrt(area / ratio)
    angle, bend = random.uniform(0, np.pi), random.normal(0, 0.3) / length
    y, x = np.mgrid[:side, :side] - random.uniform(0, side, size=2)[:, None, None]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle) + bend * along**2
    return (abs(along) <= length / 2) & (abs(across) <= width / 2)


def _softened(random: np.random.Generator, region: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(region.astype(np.float32), random.uniform(0, 1))


def _elsewhere(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Another place of the same image, brightness and contrast a little off."""
    shift = random.integers(len(good) // 8, len(good) - len(good) // 8 + 1, size=2)
    return _jittered(random, np.roll(good, shift, axis=(0, 1)))


def _tiles_of_other(random: np.random.Generator, good: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The other image, turned, cut into tiles and shuffled."""
    turned = np.rot90(other, int(random.integers(4)))
    tile = len(good) // TILES
    order = random.permutation(TILES**2)
    result = turned.copy()
    for place, taken in enumerate(order):
        (y, x), (from_y, from_x) = divmod(place, TILES), divmod(int(taken), TILES)
        result[y * tile :, x * tile :][:tile, :tile] = turned[from_y * tile :, from_x * tile :][
            :tile, :tile
        ]
    return _jittered(random, result)


def _procedural(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    from decodiff_pipeline.data.procedural import procedural_image

    texture = procedural_image(int(random.integers(2**31)), 0, size=len(good)).astype(np.float32)
    grey = not np.ptp(good, axis=2).any()
    # Colour in a grey image would be no defect that its camera could have seen.
    return np.repeat(texture.mean(2, keepdims=True), 3, axis=2) if grey else texture


def _shade(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """What is there, lighter or darker: stains, shadows, dead areas, cracks."""
    lightest = 255.0 if random.random() < 1 / 3 else 0.0
    return good + random.uniform(0.3, 0.9) * (lightest - good)


TEXTURES: tuple[Drawing, ...] = (_elsewhere, _tiles_of_other, _procedural, _shade)


def _jittered(random: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    contrast, brightness = random.uniform(0.7, 1.3), random.uniform(-40, 40)
    mean = texture.mean()
    return (texture - mean) * contrast + mean + brightness


def _blended(
    good: np.ndarray, texture: np.ndarray, opacity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mixed = good + opacity[..., None] * (texture - good)
    image = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return image, abs(image - good).max(axis=2) >= VISIBLE
