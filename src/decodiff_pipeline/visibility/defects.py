"""Synthetic defects of known size and contrast, and what an autoencoder leaves of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.metrics.image_quality import LUMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Box = tuple[slice, slice]

# More red, less green, the same luma.
COLOUR_SHIFT = np.array([1.0, -LUMA[0] / LUMA[1], 0.0])
HALF = 0.5
QUANTISATION = 1 / 12  # variance of rounding to whole grey levels


@dataclass(frozen=True)
class Kind:
    """What a synthetic defect is like, whatever its size."""

    contrast: int  # in levels of 255: of all channels, or of red where it is ``colour``
    colour: bool = False  # whether the brightness stays and the colour changes

    @property
    def name(self) -> str:
        """Such as ``grey_32`` or ``colour_64``."""
        return f"{'colour' if self.colour else 'grey'}_{self.contrast}"

    def drawn(self, region: np.ndarray) -> np.ndarray:
        """The region with the defect on all of it.

        The defect is lighter or darker, redder or greener, whichever is less in the way of black
        and white. One of colour is weaker where a channel would leave 0…255: it would change the
        brightness there.

        Args:
            region: uint8 (h, w, 3).

        Returns:
            uint8 (h, w, 3).
        """
        pixels = region.astype(np.float64)
        if not self.colour:
            sign = 1 if pixels.mean() < 255 / 2 else -1
            return np.clip(pixels + sign * self.contrast, 0, 255).astype(np.uint8)
        shifts = []
        for direction in (COLOUR_SHIFT, -COLOUR_SHIFT):
            room = np.where(direction > 0, 255 - pixels, pixels)[..., direction != 0]
            most = (room / abs(direction[direction != 0])).min(axis=2)
            shifts.append(np.minimum(most, self.contrast)[..., None] * direction)
        shift = max(shifts, key=lambda one: float(abs(one).mean()))
        return np.rint(pixels + shift).clip(0, 255).astype(np.uint8)

    def full_norm(self, side: int) -> float:
        """Euclidean norm of a defect of this side that nothing has weakened."""
        length = float(np.linalg.norm(COLOUR_SHIFT)) if self.colour else sqrt(3)
        return self.contrast * side * length


@dataclass(frozen=True)
class Survival:
    """What is left of the defects of one kind and size."""

    share: float  # Σₖ⟨Δₖ, Dₖ⟩ / Σₖ⟨Dₖ, Dₖ⟩, about 0…1; negative where the wrong way round
    snr: float  # meanₖ⟨Δₖ, Dₖ⟩/‖Dₖ‖ over the root of meanₖ(⟨eₖ, Dₖ⟩/‖Dₖ‖)² + 1/12
    count: int  # defects that it is measured on


def places(identity: str, box: Box, side: int, count: int) -> list[Box] | None:
    """Where the defects of one image go: each in a field of its own, drawn by the identity.

    Args:
        identity: What tells the image from others, such as its SHA-256.
        box: The part of the square that shows the image.

    Returns:
        Rows and columns of each; None where the fields are too small.
    """
    fields = ceil(sqrt(count))
    lengths = [(part.stop - part.start) // fields for part in box]
    if side > min(lengths):
        return None
    digest = hashlib.sha256(f"visibility:{identity}:{side}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    found = []
    # In another order for each image: no kind of defect is always in the same corner.
    for number in random.permutation(fields**2)[:count].tolist():
        starts = [
            part.start + index * length + int(random.integers(length - side + 1))
            for part, index, length in zip(box, divmod(number, fields), lengths, strict=True)
        ]
        down, across = (slice(start, start + side) for start in starts)
        found.append((down, across))
    return found


def survival(
    kind: Kind, side: int, samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Survival | None:
    """How much of some defects survives encoding and decoding, beside the noise of good images.

    With x the good image, x' the one with the defect, R what encoding and decoding make of an
    image, and all of it within the defect's pixels k: the defect's difference is D = x' - x, what
    is left of it Δ = R(x') - R(x), and the reconstruction noise of the good image e = R(x) - x.
    The share that survives is the part of Δ along D; the signal-to-noise ratio is the response of
    a filter matched to D to what is left, over the root mean square of its response to the noise:

        share = Σₖ⟨Δₖ, Dₖ⟩ / Σₖ⟨Dₖ, Dₖ⟩
        snr = meanₖ(⟨Δₖ, Dₖ⟩/‖Dₖ‖) / √(meanₖ(⟨eₖ, Dₖ⟩/‖Dₖ‖)² + 1/12)

    where 1/12 is the variance of rounding to whole grey levels. A detector that compares
    reconstructions sees no more of a defect than Δ.

    Args:
        samples: D, Δ and e of each, float (side, side, 3) in grey levels.

    Returns:
        None where no defect could be drawn at half of its strength at least, as a colour on black.
    """
    full = kind.full_norm(side)
    strong = [parts for parts in samples if np.linalg.norm(parts[0]) >= HALF * full]
    if not strong:
        return None
    norms = np.array([np.linalg.norm(drawn) for drawn, _, _ in strong])
    left = np.array([np.vdot(kept, drawn) for drawn, kept, _ in strong])
    noise = np.array([np.vdot(error, drawn) for drawn, _, error in strong]) / norms
    return Survival(
        share=float(left.sum() / (norms**2).sum()),
        snr=float((left / norms).mean() / np.sqrt((noise**2).mean() + QUANTISATION)),
        count=len(strong),
    )


def with_defects(square: np.ndarray, kinds: Sequence[Kind], where: Sequence[Box]) -> np.ndarray:
    """A copy of a square, uint8 (S, S, 3), with one defect of each kind."""
    result = square.copy()
    for kind, box in zip(kinds, where, strict=True):
        result[box] = kind.drawn(square[box])
    return result


def samples(
    good: np.ndarray,
    spoiled: np.ndarray,
    good_again: np.ndarray,
    spoiled_again: np.ndarray,
    where: Sequence[Box],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """D, Δ and e of each defect of one image.

    Args:
        good: The image, (S, S, 3) in grey levels; so with the next three.
        spoiled: With its defects.
        good_again: What encoding and decoding make of the first.
        spoiled_again: What they make of the second.
        where: Of the defects.
    """
    for box in where:
        first, second = good[box].astype(np.float64), spoiled[box].astype(np.float64)
        yield second - first, spoiled_again[box] - good_again[box], good_again[box] - first
