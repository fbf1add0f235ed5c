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

# What latents are cached and trainings validated with; part of every key of a cached one.
VERSION = 2
# Small, faint and more like real ones: what image scores are chosen by.
HARDER = 3
# Share of the image, before the invisible part of a region is dropped.
SMALLEST, LARGEST = 0.002, 0.1
SMALLEST_HARDER = 0.001  # at 256², a cell of the latents
FAINTEST, STRONGEST = 16, 128  # grey levels that a harder defect's region changes by, on average
VISIBLE = 12  # grey levels of 255, in the channel that changes most
LEAST_VISIBLE = 0.0008  # share of the image: 13 pixels of 128²
ATTEMPTS = 20
TILES = 4


def synthetic_defect(
    square: np.ndarray,
    identity: str,
    number: int,
    source: np.ndarray | None = None,
    version: int = VERSION,
    inside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Put one defect into a good image: a function of the arguments alone.

    Half of the defects are ragged regions of thresholded Perlin noise (Zavrtanik et al., "DRAEM",
    ICCV 2021), half are rectangles and thin scars at any angle (Li et al., "CutPaste", CVPR
    2021). They are filled with another place of the image, with another image, with a procedural
    texture or with a lighter or darker shade of what is there, at an opacity of 0.3 to 1.

    The harder ones also are scratches and cracks a pixel or two wide, parts that are displaced or
    missing, colours that are off and places that are worn or out of focus, blended so that they
    differ by 16 to 128 grey levels on average, where the texture does.

    Args:
        square: The good image at the model's input size, uint8 (S, S, 3).
        identity: What tells this image from others, such as its SHA-256.
        number: Which of its defects; there is no last one.
        source: Another good image to take textures from, uint8 (S, S, 3); by default ``square``.
        version: ``VERSION`` or ``HARDER``.
        inside: Where it may be, bool (S, S) with at least one True; anywhere by default.

    Returns:
        The image with the defect, uint8 (S, S, 3), and its mask, bool (S, S): True where some
        channel changed by at least 12 of 255 grey levels. The mask is never empty.
    """
    random = _generator(identity, number, version)
    good = square.astype(np.float32)
    other = good if source is None else source.astype(np.float32)
    for _ in range(ATTEMPTS):
        texture, opacity = (_harder if version == HARDER else _plain)(random, good, other, inside)
        image, mask = _blended(good, texture, opacity)
        if mask.mean() >= LEAST_VISIBLE:
            return image, mask
    # An image so uniform that nothing taken from it shows.
    region = _moved(random, _ragged(random, len(square)), inside)
    return _blended(good, (good + 128) % 256, region.astype(np.float32))


def _moved(
    random: np.random.Generator, region: np.ndarray, inside: np.ndarray | None
) -> np.ndarray:
    """The region with some pixel of it at some pixel of ``inside``, and what lies outside cut off.

    It is drawn for the whole square first, and keeps its shape.
    """
    if inside is None or not region.any():
        return region
    wanted, found = (np.argwhere(each) for each in (inside, region))
    shift = wanted[random.integers(len(wanted))] - found[random.integers(len(found))]
    return np.roll(region, shift, axis=(0, 1)) & inside


def _generator(identity: str, number: int, version: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{version}:{identity}:{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _plain(
    random: np.random.Generator, good: np.ndarray, other: np.ndarray, inside: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """A texture, float32 (S, S, 3), and its opacity at each pixel, float32 (S, S)."""
    region = _ragged(random, len(good)) if random.random() < 1 / 2 else _strip(random, good)
    region = _moved(random, region, inside)
    texture = TEXTURES[random.integers(len(TEXTURES))](random, good, other)
    opacity = random.uniform(0.3, 1.0)
    return texture, opacity * _softened(random, region, inside)


def _harder(
    random: np.random.Generator, good: np.ndarray, other: np.ndarray, inside: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """As `_plain`."""
    side, textures = len(good), (*TEXTURES, *HARDER_TEXTURES)
    region = (
        _ragged(random, side, SMALLEST_HARDER),
        _rectangle(random, side, SMALLEST_HARDER),
        _line(random, side),
    )[random.integers(3)]
    region = _moved(random, region, inside)
    texture = textures[random.integers(len(textures))](random, good, other)
    wanted = np.exp(random.uniform(np.log(FAINTEST), np.log(STRONGEST)))
    change = abs(texture - good).max(axis=2)[region].mean() if region.any() else 0.0
    opacity = min(1.0, wanted / max(change, 1e-6))
    return texture, opacity * _softened(random, region, inside)


def _area(random: np.random.Generator, smallest: float) -> float:
    return float(np.exp(random.uniform(np.log(smallest), np.log(LARGEST))))


def _ragged(random: np.random.Generator, side: int, smallest: float = SMALLEST) -> np.ndarray:
    """A region around some place, as large as drawn, with the outline of Perlin noise."""
    area = _area(random, smallest)
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
        return _bar(random, side, length, width)
    return _rectangle(random, side)


def _rectangle(random: np.random.Generator, side: int, smallest: float = SMALLEST) -> np.ndarray:
    area, ratio = _area(random, smallest) * side**2, random.uniform(1, 3)
    return _bar(random, side, np.sqrt(area * ratio), np.sqrt(area / ratio))


def _bar(random: np.random.Generator, side: int, length: float, width: float) -> np.ndarray:
    angle, bend = random.uniform(0, np.pi), random.normal(0, 0.3) / length
    y, x = np.mgrid[:side, :side] - random.uniform(0, side, size=2)[:, None, None]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle) + bend * along**2
    return (abs(along) <= length / 2) & (abs(across) <= width / 2)


def _line(random: np.random.Generator, side: int) -> np.ndarray:
    """A scratch, straight or bent, or a crack that changes its direction at every pixel."""
    length = int(side * np.exp(random.uniform(np.log(0.08), np.log(0.8))))
    turns = random.choice([0.0, 0.1, 0.4]) * random.normal(size=length)
    angles = random.uniform(0, 2 * np.pi) + np.cumsum(turns)
    steps = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    path = random.uniform(0, side, size=2) + np.cumsum(steps, axis=0)
    y, x = np.floor(path[((path >= 0) & (path < side)).all(axis=1)]).astype(int).T
    away = np.ones((side, side), bool)
    away[y, x] = False
    width = random.uniform(1, max(2.5, side / 64))
    return (ndimage.distance_transform_edt(away) < width / 2) & bool(len(y))


def _softened(
    random: np.random.Generator, region: np.ndarray, inside: np.ndarray | None
) -> np.ndarray:
    soft = ndimage.gaussian_filter(region.astype(np.float32), random.uniform(0, 1))
    return soft if inside is None else soft * inside


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


def _tinted(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """What is there, in another colour; in a grey image, of another brightness and contrast."""
    if not np.ptp(good, axis=2).any():
        return _jittered(random, good)
    mean = good.mean(axis=2, keepdims=True)
    return mean + random.uniform(0, 2) * (good - mean) + random.uniform(-60, 60, size=3)


def _same_place(_: np.random.Generator, good: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The same place of the other image: a part that is not there, or of another kind."""
    grey = not np.ptp(good, axis=2).any()
    return np.repeat(other.mean(2, keepdims=True), 3, axis=2) if grey else other


def _displaced(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """What is beside it: a part that is not where it belongs."""
    reach = len(good) // 8
    shift = random.integers(-reach, reach + 1, size=2)
    return np.roll(good, shift + 2 * np.sign(shift), axis=(0, 1))


def _blurred(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """What is there, worn or out of focus, or only what is around it: a missing part."""
    sigma = len(good) / 128 * np.exp(random.uniform(0, np.log(12)))
    return ndimage.gaussian_filter(good, (sigma, sigma, 0))


HARDER_TEXTURES: tuple[Drawing, ...] = (_tinted, _same_place, _displaced, _blurred)


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
