"""Synthetic defects: a region of a good image is replaced, and its mask is known.

They replace real defects where settings are chosen without any: clip limits, weights, the image
score, early stopping. They do not measure how well a model detects real defects.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    Drawing = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]

# Defects of cached latents and of validation during training; part of the cache key.
VERSION = 2
# Smaller, fainter and more realistic defects, used to choose the image score.
HARDER = 3
# Area of a region as a share of the image, before pixels without a visible change are dropped.
SMALLEST, LARGEST = 0.002, 0.1
SMALLEST_HARDER = 0.001  # one latent cell of 256x256 pixels
FAINTEST, STRONGEST = 16, 128  # mean change of a `HARDER` defect in its region, in grey levels
VISIBLE = 12  # smallest change that is masked, in grey levels, in the channel that changes most
LEAST_VISIBLE = 0.0008  # smallest mask, as a share of the image: 13 of 128x128 pixels
ATTEMPTS = 20
TILES = 4  # per side


def synthetic_defect(
    square: np.ndarray,
    identity: str,
    number: int,
    source: np.ndarray | None = None,
    version: int = VERSION,
    inside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add one defect to a good image, determined by the arguments.

    Half of the defects are regions of thresholded Perlin noise (Zavrtanik et al., "DRAEM", ICCV
    2021), half are rectangles and thin scars at any angle (Li et al., "CutPaste", CVPR 2021). They
    are filled with another part of the image, another image, a procedural texture, or the image
    made lighter or darker, at an opacity of 0.3 to 1.

    ``HARDER`` adds lines one or two pixels wide (scratches, cracks), and displaced, missing,
    blurred or discoloured parts. The opacity is chosen so that the region changes by 16 to 128 grey
    levels on average, or by less if the texture itself differs by less.

    Args:
        square: The good image at the model's input size, uint8 (S, S, 3).
        identity: Unique identifier of the image, such as its SHA-256.
        number: Number of the defect of this image, unbounded.
        source: Another good image, the source of textures, uint8 (S, S, 3); default: ``square``.
        version: ``VERSION`` or ``HARDER``.
        inside: Pixels that may change, bool (S, S) with at least one True; default: all.

    Returns:
        The image with the defect, uint8 (S, S, 3), and its mask, bool (S, S): True where some
        channel changed by at least ``VISIBLE`` grey levels. The mask is never empty.
    """
    random = _generator(identity, number, version)
    good = square.astype(np.float32)
    other = good if source is None else source.astype(np.float32)
    for _ in range(ATTEMPTS):
        texture, opacity = (_harder if version == HARDER else _plain)(random, good, other, inside)
        image, mask = _blended(good, texture, opacity)
        if mask.mean() >= LEAST_VISIBLE:
            return image, mask
    # The image is so uniform that no texture is visible in it.
    region = _moved(random, _ragged(random, len(square)), inside)
    return _blended(good, (good + 128) % 256, region.astype(np.float32))


def _moved(
    random: np.random.Generator, region: np.ndarray, inside: np.ndarray | None
) -> np.ndarray:
    """Shift the region until a random pixel of it lies on a random one of ``inside``, and crop it.

    Without ``inside`` the region is returned unchanged.
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
    """A region of random area around a random centre, outlined by thresholded Perlin noise."""
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
        random: Generator of the gradients.
        side: Side of the square in pixels.
        cells: Number of lattice cells, down and across.

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
    """A rectangle at any angle: a patch, or a scar a few pixels wide."""
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
    """A straight or curved scratch, or a crack that changes its direction at every pixel."""
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
    """Another part of the same image, with jittered brightness and contrast."""
    shift = random.integers(len(good) // 8, len(good) - len(good) // 8 + 1, size=2)
    return _jittered(random, np.roll(good, shift, axis=(0, 1)))


def _tiles_of_other(random: np.random.Generator, good: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The other image, rotated by a multiple of 90° and cut into shuffled tiles."""
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
    # A grey image stays grey: its camera cannot record colours.
    return np.repeat(texture.mean(2, keepdims=True), 3, axis=2) if grey else texture


def _shade(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The image made lighter or darker: stains, shadows, dead areas, cracks."""
    lightest = 255.0 if random.random() < 1 / 3 else 0.0
    return good + random.uniform(0.3, 0.9) * (lightest - good)


TEXTURES: tuple[Drawing, ...] = (_elsewhere, _tiles_of_other, _procedural, _shade)


def _tinted(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The image in other colours; a grey image with other brightness and contrast."""
    if not np.ptp(good, axis=2).any():
        return _jittered(random, good)
    mean = good.mean(axis=2, keepdims=True)
    return mean + random.uniform(0, 2) * (good - mean) + random.uniform(-60, 60, size=3)


def _same_place(_: np.random.Generator, good: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The same place of the other image: a missing or a wrong part."""
    grey = not np.ptp(good, axis=2).any()
    return np.repeat(other.mean(2, keepdims=True), 3, axis=2) if grey else other


def _displaced(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The image shifted by a few pixels: a displaced part."""
    reach = len(good) // 8
    shift = random.integers(-reach, reach + 1, size=2)
    return np.roll(good, shift + 2 * np.sign(shift), axis=(0, 1))


def _blurred(random: np.random.Generator, good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The image with Gaussian blur: a worn, defocused or missing part."""
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
