"""Seeded procedural images: training data without a licence.

Each image is a random scalar field (dead leaves, fractal noise, gratings, Voronoi grains, a grid
of cells, ...) that is mapped to grey or colours. Patches, glyphs, lines and lighting are added at
random, then blur and sensor noise.
Natural images and factory textures share the statistics that a small autoencoder has to learn: 1/f
spectra, occlusion edges, periodic structure, grain. The fields cover them: dead leaves after Lee,
Mumford and Huang, "Occlusion models for natural images" (IJCV 2001), fractal noise with 1/f^b
spectra (Field, JOSA A 1987).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Field = NDArray[np.float32]

MIN_CONTRAST = 0.15


def procedural_image(seed: int, index: int, *, size: int = 256) -> NDArray[np.uint8]:
    """Draw one image, determined by ``(seed, index, size)``.

    Args:
        seed: Seed of the collection.
        index: Number of the image in the collection, which is unbounded.
        size: Side in pixels, at least 16.

    Returns:
        RGB image, ``(size, size, 3)``, uint8, 0-255.
    """
    rng = np.random.default_rng([seed, index])
    name = rng.choice(list(FIELDS), p=[share for _, share in FIELDS.values()])
    field = _unit(FIELDS[str(name)][0](rng, size))
    if _chance(rng, 0.5):
        field = _mix(rng, field)
    image = _colour(rng, field)
    for probability, change in CHANGES:
        if _chance(rng, probability):
            image = change(rng, image)
    return _finish(rng, image)


def fractal_noise(rng: np.random.Generator, size: int) -> Field:
    """Gaussian field with a 1/f^b spectrum, b in 0.6-2.6, anisotropic with probability 1/2."""
    exponent = rng.uniform(0.6, 2.6)
    stretch = rng.uniform(1.0, 12.0) if _chance(rng, 0.5) else 1.0
    angle = rng.uniform(0.0, np.pi)
    u, v = np.fft.rfftfreq(size)[None, :], np.fft.fftfreq(size)[:, None]
    along = u * np.cos(angle) + v * np.sin(angle)
    across = u * np.sin(angle) - v * np.cos(angle)
    radius = np.sqrt((along * stretch) ** 2 + across**2)
    radius[0, 0] = np.inf  # zero mean
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / radius**exponent
    return np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)


def dead_leaves(rng: np.random.Generator, size: int) -> Field:
    """Overlapping discs or boxes with power-law radii (density ~ r^-3)."""
    smallest = rng.uniform(1.5, 6.0)
    largest = max(size * rng.uniform(0.15, 0.6), 2 * smallest)
    count = int(rng.integers(200, 900))
    low, high = largest**-2, smallest**-2
    radii = 1.0 / np.sqrt(rng.uniform(low, high, count))
    field = np.full((size, size), rng.random(), np.float32)
    boxes = _chance(rng, 0.4)
    for radius in radii:
        _leaf(rng, field, float(radius), box=boxes)
    return field


def _leaf(rng: np.random.Generator, field: Field, radius: float, *, box: bool) -> None:
    """Draw one disc or box with a linear shade into ``field``, in place."""
    size = field.shape[0]
    y, x = rng.uniform(0, size, 2)
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.3, 1.0)
    top, left = max(0, int(y - radius)), max(0, int(x - radius))
    bottom, right = min(size, int(y + radius) + 2), min(size, int(x + radius) + 2)
    dy, dx = np.ogrid[top:bottom, left:right]
    dy, dx = (dy - y).astype(np.float32), (dx - x).astype(np.float32)
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
    reach = np.maximum(abs(along), abs(across)) * np.sqrt(2) if box else np.hypot(along, across)
    shade = rng.random() + rng.normal(0, 0.15) * along / radius
    window = field[top:bottom, left:right]
    window[:] = np.where(reach < radius, shade, window)


def grating(rng: np.random.Generator, size: int) -> Field:
    """Sum of one to three sine or square waves with periods of 3 to 64 pixels."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    field = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 4)):
        angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
        period = np.exp(rng.uniform(np.log(3), np.log(64)))
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        hardness = rng.choice([0.0, rng.uniform(1, 20)])
        field += rng.random() * (np.tanh(wave * hardness) if hardness else wave)
    return field


def voronoi_grains(rng: np.random.Generator, size: int) -> Field:
    """Voronoi cells of constant shade, with or without borders: wafers, castings."""
    points = rng.uniform(0, size, (int(rng.integers(8, 400)), 2))
    y, x = np.mgrid[:size, :size]
    pixels = np.stack([y.ravel(), x.ravel() * rng.uniform(0.3, 1.0)], 1)
    distance, nearest = cKDTree(points).query(pixels, k=2)
    field = rng.random(len(points))[nearest[:, 0]]
    if _chance(rng, 0.5):
        field = field - rng.uniform(0, 1.5) * (distance[:, 1] - distance[:, 0] < rng.uniform(1, 4))
    return field.reshape(size, size).astype(np.float32)


def cell_grid(rng: np.random.Generator, size: int) -> Field:
    """Busbars, thin fingers and a frame over a smooth background: solar cells, tiles."""
    field = _unit(ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 8))
    field = field * rng.uniform(0.1, 0.6) + 0.5
    offset, pitch = rng.uniform(0, size / 4), size / rng.uniform(1, 6)
    width = rng.uniform(1, 10)
    place = (np.arange(size) - offset) % pitch
    field[place < width] -= rng.uniform(0.2, 0.8)
    fine = np.arange(size) % rng.uniform(3, 12) < rng.uniform(0.8, 2.0)
    field[:, fine] -= rng.uniform(0.0, 0.15)
    margin = int(rng.integers(0, size // 12 + 1))
    if margin:
        inside = np.zeros_like(field)
        inside[margin:-margin, margin:-margin] = 1
        field *= inside
    grain = _unit(fractal_noise(rng, size)) - 0.5
    return (field + grain * rng.uniform(0, 0.6)).astype(np.float32)


def gradient(rng: np.random.Generator, size: int) -> Field:
    """A linear or radial ramp: shading, vignettes, out-of-focus areas."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle = rng.uniform(0, 2 * np.pi)
    if _chance(rng, 0.5):
        return x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    cy, cx = rng.uniform(-0.2, 1.2, 2)
    return np.hypot(x - np.float32(cx), y - np.float32(cy))


def blobs(rng: np.random.Generator, size: int) -> Field:
    """Thresholded smooth noise with sharp or soft borders: stains, pores."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal((size, size)).astype(np.float32), rng.uniform(1, size / 16)
    )
    level = np.quantile(noise, rng.uniform(0.2, 0.9))
    return np.tanh((noise - level) / noise.std() * rng.uniform(1, 30)).astype(np.float32)


FIELDS: dict[str, tuple[Callable[[np.random.Generator, int], Field], float]] = {
    "dead_leaves": (dead_leaves, 0.26),
    "fractal_noise": (fractal_noise, 0.22),
    "cell_grid": (cell_grid, 0.16),
    "voronoi_grains": (voronoi_grains, 0.12),
    "grating": (grating, 0.10),
    "blobs": (blobs, 0.08),
    "gradient": (gradient, 0.06),
}


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _unit(field: Field) -> Field:
    """Scale a field to 0-1, with the 0.5% and 99.5% quantiles as its ends, and clip it."""
    low, high = np.quantile(field, [0.005, 0.995])
    return np.clip((field - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def _mix(rng: np.random.Generator, field: Field) -> Field:
    """Add, multiply or mask with a second random field."""
    names = list(FIELDS)
    other = _unit(FIELDS[names[int(rng.integers(len(names)))]][0](rng, field.shape[0]))
    how = rng.integers(3)
    if how == 0:
        share = rng.uniform(0.05, 0.6)
        return (1 - share) * field + share * other
    if how == 1:
        return field * (1 - rng.uniform(0, 0.8) * other)
    mask = _unit(blobs(rng, field.shape[0]))
    return field * mask + other * (1 - mask)


def _colour(rng: np.random.Generator, field: Field) -> Field:
    """Map a field to RGB: grey, tinted, or by a random palette, discrete or interpolated."""
    low, high = np.sort(rng.uniform(0, 1, 2))
    if high - low < MIN_CONTRAST:
        low, high = max(0.0, low - 0.1), min(1.0, high + 0.1)
    if _chance(rng, 0.5):
        low, high = high, low
    field = field ** np.float32(np.exp(rng.normal(0, 0.4)))
    grey = np.linspace(low, high, 4)[:, None]
    kind = rng.choice(["grey", "tinted", "graded", "flat"], p=[0.25, 0.25, 0.3, 0.2])
    if kind == "grey":
        return np.repeat((low + (high - low) * field)[..., None], 3, axis=2).astype(np.float32)
    if kind == "tinted":
        spread = rng.uniform(0.03, 0.3)
        anchors = np.clip(grey + rng.normal(0, spread, (4, 3)), 0, 1).astype(np.float32)
    else:
        anchors = _colours(rng, int(rng.integers(2, 6 if kind == "graded" else 48)))
    if kind == "flat":
        index = np.minimum((field * len(anchors)).astype(int), len(anchors) - 1)
        return anchors[index]
    knots = np.linspace(0, 1, len(anchors))
    colours = [np.interp(field, knots, anchors[:, c]) for c in range(3)]
    return np.stack(colours, 2).astype(np.float32)


def _colours(rng: np.random.Generator, count: int) -> Field:
    """Random colours, ``(count, 3)`` in 0-1, with one saturation for all or one for each."""
    hue = 2 * np.pi * (rng.random() + rng.uniform(0, 1) * rng.random(count))
    value = rng.uniform(0, 1, count) ** rng.choice([0.5, 1.0, 2.0])
    saturation = rng.uniform(0, 1, (1 if _chance(rng, 0.5) else count, 1))
    shades = 0.5 + 0.5 * np.cos(hue[:, None] + np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    span = np.ptp(shades, axis=1, keepdims=True)  # pure hue: one channel at 0, another at 1
    pure = (shades - shades.min(axis=1, keepdims=True)) / np.maximum(span, 1e-6)
    return (value[:, None] * (1 - saturation * (1 - pure))).astype(np.float32)


def _coloured_light(rng: np.random.Generator, image: Field) -> Field:
    """Multiply by a gradient between two random light colours."""
    fade = _unit(gradient(rng, image.shape[0]))[..., None]
    lamps = 1 - rng.uniform(0, 0.8) * (1 - _colours(rng, 2))
    lamps = lamps / lamps.max(axis=1, keepdims=True).clip(0.2)
    return image * (lamps[0] * fade + lamps[1] * (1 - fade))


def _patches(rng: np.random.Generator, image: Field) -> Field:
    """Draw small ellipses and boxes of random colours: labels, parts, stains."""
    size = image.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    image = image.copy()
    colours = _colours(rng, int(rng.integers(1, 16)))
    for colour in colours:
        radius = np.exp(rng.uniform(np.log(1.0), np.log(size / 8)))
        cy, cx = rng.uniform(0, size, 2)
        ratio = rng.uniform(0.3, 1.0)
        if _chance(rng, 0.5):
            inside = np.hypot((y - cy) / ratio, x - cx) < radius
        else:
            inside = np.maximum(abs(y - cy) / ratio, abs(x - cx)) < radius
        opacity = 1.0 if _chance(rng, 0.7) else rng.uniform(0.2, 1.0)
        image[inside] += opacity * (colour - image[inside])
    return image


def _print(rng: np.random.Generator, image: Field) -> Field:
    """Draw rows of small random glyphs: lettering, codes, perforated patterns."""
    size = image.shape[0]
    height, width = int(rng.integers(3, 9)), int(rng.integers(3, 7))
    scale = int(rng.integers(1, 5))
    rows, columns = (int(n) for n in rng.integers(1, 14, 2))
    drawn = rng.random((rows, columns, height, width)) < rng.uniform(0.3, 0.7)
    gap = int(rng.integers(1, 4))
    glyphs = np.pad(drawn, ((0, 0), (0, 0), (0, gap), (0, 1)))
    page = glyphs.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + 1))
    page = np.kron(page, np.ones((scale, scale), bool))[:size, :size]
    top, left = (int(rng.integers(size - n + 1)) for n in page.shape)
    image = image.copy()
    window = image[top : top + page.shape[0], left : left + page.shape[1]]
    window[page] = _colours(rng, 1)[0]
    return image


def _lines(rng: np.random.Generator, image: Field) -> Field:
    """Draw thin straight or curved lines: scratches, cracks, wires, seams."""
    size = image.shape[0]
    layer = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 12)):
        steps = np.linspace(0, 1, 2 * size)
        y, x = rng.uniform(0, size, 2)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1.2) * size
        bend = rng.normal(0, 0.3 * size) if _chance(rng, 0.5) else 0.0
        ys = y + np.sin(angle) * length * steps + np.cos(angle) * bend * steps**2
        xs = x + np.cos(angle) * length * steps - np.sin(angle) * bend * steps**2
        keep = (ys >= 0) & (ys < size) & (xs >= 0) & (xs < size)
        layer[ys[keep].astype(int), xs[keep].astype(int)] = rng.uniform(0.2, 1.0)
    if _chance(rng, 0.6):
        layer = np.minimum(1, ndimage.gaussian_filter(layer, rng.uniform(0.4, 1.5)) * 2)
    shade = _colours(rng, 1)[0] if _chance(rng, 0.5) else np.float32(rng.random())
    return image + layer[..., None] * (shade - image)


CHANGES: tuple[tuple[float, Callable[[np.random.Generator, Field], Field]], ...] = (
    (0.3, _patches),
    (0.15, _print),
    (0.4, _lines),
    (0.2, _coloured_light),
)


def _finish(rng: np.random.Generator, image: Field) -> NDArray[np.uint8]:
    """Add blur (with probability 0.85) and sensor noise, and round to 8 bits."""
    sigma = rng.choice([0.0, rng.uniform(0.3, 0.9), rng.uniform(0.9, 2.5)], p=[0.15, 0.6, 0.25])
    if sigma:
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    if _chance(rng, 0.6):
        channels = 3 if _chance(rng, 0.5) and np.ptp(image, axis=2).any() else 1
        noise = rng.standard_normal((*image.shape[:2], channels)).astype(np.float32)
        grain = rng.choice([0.0, rng.uniform(0.5, 1.2)])
        noise = ndimage.gaussian_filter(noise, (grain, grain, 0)) if grain else noise
        image = image + noise * np.float32(np.exp(rng.uniform(np.log(0.003), np.log(0.06))))
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
