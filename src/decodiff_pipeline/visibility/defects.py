"""Synthetic defects of known size and contrast, and their survival of encoding and decoding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.metrics.image_quality import LUMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from decodiff_pipeline.visibility.fidelity import Reconstructed

    Box = tuple[slice, slice]

# More red and less green at the same luma.
COLOUR_SHIFT = np.array([1.0, -LUMA[0] / LUMA[1], 0.0])
HALF = 0.5
QUANTISATION = 1 / 12  # variance of rounding to whole grey levels


@dataclass(frozen=True)
class Kind:
    """Contrast of a synthetic defect."""

    contrast: int  # in levels (0…255): of all channels, or of red if ``colour``
    colour: bool = False  # the colour changes and the brightness does not

    @property
    def name(self) -> str:
        """A name such as ``grey_32`` or ``colour_64``."""
        return f"{'colour' if self.colour else 'grey'}_{self.contrast}"

    def drawn(self, region: np.ndarray) -> np.ndarray:
        """A region, uint8 (h, w, 3), covered by the defect.

        The sign (lighter or darker, redder or greener) is the one with more room within 0…255. A
        colour defect is weaker where a channel would be clipped, because clipping would change the
        brightness.
        """
        pixels = region.astype(np.float64)
        if not self.colour:
            sign = 1 if pixels.mean() < 255 / 2 else -1
            return np.clip(pixels + sign * self.contrast, 0, 255).astype(np.uint8)
        shifts = []
        for direction in (COLOUR_SHIFT, -COLOUR_SHIFT):
            room = np.where(direction > 0, 255 - pixels, pixels)[..., direction != 0]
            limit = (room / abs(direction[direction != 0])).min(axis=2)
            shifts.append(np.minimum(limit, self.contrast)[..., None] * direction)
        shift = max(shifts, key=lambda candidate: float(abs(candidate).mean()))
        return np.rint(pixels + shift).clip(0, 255).astype(np.uint8)

    def full_norm(self, side: int) -> float:
        """Euclidean norm of a defect with this side at full contrast."""
        length = float(np.linalg.norm(COLOUR_SHIFT)) if self.colour else sqrt(3)
        return self.contrast * side * length


@dataclass(frozen=True)
class Survival:
    """Survival of the defects of one kind and size; see `survival`."""

    share: float  # reconstructed share of the difference, about 0…1; negative if inverted
    snr: float  # signal-to-noise ratio of a matched filter
    count: int  # number of defects measured


def places(identity: str, box: Box, side: int, count: int) -> list[Box] | None:
    """Random positions of the defects of one image, each in its own cell of a grid.

    Args:
        identity: Seed of the positions, such as the image's SHA-256.
        box: The part of the square that shows the image.
        side: Side of a defect in pixels.
        count: Number of defects.

    Returns:
        Rows and columns of each; None if a cell is smaller than a defect.
    """
    cells = ceil(sqrt(count))
    lengths = [(part.stop - part.start) // cells for part in box]
    if side > min(lengths):
        return None
    digest = hashlib.sha256(f"visibility:{identity}:{side}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    boxes = []
    # Permuted for each image, so that a kind of defect is not always in the same cell.
    for number in random.permutation(cells**2)[:count].tolist():
        starts = [
            part.start + index * length + int(random.integers(length - side + 1))
            for part, index, length in zip(box, divmod(number, cells), lengths, strict=True)
        ]
        rows, columns = (slice(start, start + side) for start in starts)
        boxes.append((rows, columns))
    return boxes


def survival(
    kind: Kind, side: int, samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Survival | None:
    """Survival of defects in the reconstruction, relative to the noise of good images.

    Notation: x is the good image, x' the image with the defect, R(·) the reconstruction, all
    within the pixels of defect k. D = x' - x is the defect's difference, Δ = R(x') - R(x) its
    reconstruction and e = R(x) - x the reconstruction error of the good image. The share is the
    component of Δ along D. The signal-to-noise ratio is the response of a filter matched to D to
    Δ, over the root mean square of its response to e:

        share = Σₖ⟨Δₖ, Dₖ⟩ / Σₖ⟨Dₖ, Dₖ⟩
        snr = meanₖ(⟨Δₖ, Dₖ⟩/‖Dₖ‖) / √(meanₖ(⟨eₖ, Dₖ⟩/‖Dₖ‖)² + 1/12)

    where 1/12 is the variance of rounding to integer grey levels. A detector that compares
    reconstructions cannot see more of a defect than Δ.

    Args:
        samples: D, Δ and e of each defect, float (side, side, 3) in grey levels.

    Returns:
        None if no defect has at least half of its full contrast, such as a colour on black.
    """
    full = kind.full_norm(side)
    strong = [parts for parts in samples if np.linalg.norm(parts[0]) >= HALF * full]
    if not strong:
        return None
    norms = np.array([np.linalg.norm(defect) for defect, _, _ in strong])
    response = np.array([np.vdot(delta, defect) for defect, delta, _ in strong])
    noise = np.array([np.vdot(error, defect) for defect, _, error in strong]) / norms
    return Survival(
        share=float(response.sum() / (norms**2).sum()),
        snr=float((response / norms).mean() / np.sqrt((noise**2).mean() + QUANTISATION)),
        count=len(strong),
    )


def with_defects(square: np.ndarray, kinds: Sequence[Kind], where: Sequence[Box]) -> np.ndarray:
    """A copy of a square, uint8 (S, S, 3), with one defect of each kind."""
    result = square.copy()
    for kind, box in zip(kinds, where, strict=True):
        result[box] = kind.drawn(square[box])
    return result


def samples(
    good: Reconstructed, defective: Reconstructed, where: Sequence[Box]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """D, Δ and e of each defect of one image; see `survival`.

    Args:
        good: x and R(x).
        defective: x' and R(x').
        where: Rows and columns of the defects.
    """
    for box in where:
        image, reconstruction = good.image[box].astype(np.float64), good.reconstruction[box]
        yield (
            defective.image[box] - image,
            defective.reconstruction[box] - reconstruction,
            reconstruction - image,
        )
