"""Two-sample tests and effect sizes of drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

BINS = 10
EXACT_UP_TO = 250_000  # product of the sample sizes; above, the asymptotic p is as good
NORMAL_IQR = 1.349  # interquartile range of the standard normal distribution


@dataclass(frozen=True)
class Comparison:
    """Comparison of recent values with reference values."""

    # Kolmogorov-Smirnov distance, within 0…1: the largest difference of the two distribution
    # functions. Replacing a share s of a sample changes it by at most s.
    distance: float
    p_value: float  # of the two-sided Kolmogorov-Smirnov test
    psi: float  # population stability index over deciles of the reference
    psi_expected: float  # its mean without drift: (bins - 1)(1/n + 1/m)
    # difference of the medians in robust standard deviations of the reference; ``None`` if the
    # standard deviation is 0
    shift: float | None
    medians: tuple[float, float]  # of the reference and of the recent values


def compare(reference: np.ndarray, recent: np.ndarray) -> Comparison | None:
    """Compare two samples.

    Args:
        reference: Float (n,), finite.
        recent: Float (m,), finite.

    Returns:
        ``None`` if a sample is empty or all values of both samples are equal. This depends only on
        the pooled sample, so that skipping the test keeps the level of the other tests.
    """
    from scipy.stats import ks_2samp

    both = np.concatenate([reference, recent])
    if not len(reference) or not len(recent) or np.ptp(both) == 0:
        return None
    exact = len(reference) * len(recent) <= EXACT_UP_TO
    test = ks_2samp(reference, recent, method="exact" if exact else "asymp")
    psi, bins = population_stability(reference, recent)
    medians = float(np.median(reference)), float(np.median(recent))
    spread = robust_spread(reference)
    return Comparison(
        distance=float(test.statistic),
        p_value=float(test.pvalue),
        psi=psi,
        psi_expected=(bins - 1) * (1 / len(reference) + 1 / len(recent)),
        shift=(medians[1] - medians[0]) / spread if spread else None,
        medians=medians,
    )


def population_stability(reference: np.ndarray, recent: np.ndarray) -> tuple[float, int]:
    """Population stability index: Σ (q - p) ln(q / p) over 10 bins of equal reference counts.

    Each count is increased by 0.5, so that an empty bin does not make the index infinite.

    Args:
        reference: Float (n,).
        recent: Float (m,).

    Returns:
        The index and the number of bins, which is smaller if quantiles of the reference are equal.
    """
    cuts = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    if len(cuts) == 1:  # (almost) constant: bins below, at and above the value
        cuts = np.array([cuts[0], np.nextafter(cuts[0], np.inf)])
    shares = []
    for values in (reference, recent):
        # side "right": a value on an edge belongs to the upper bin, in both samples
        counts = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1)
        shares.append((counts + 0.5) / (len(values) + 0.5 * len(counts)))
    before, after = shares
    return float(np.sum((after - before) * np.log(after / before))), len(before)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values of Holm's step-down procedure, float (n,) within 0…1.

    Rejecting the hypotheses with values up to a level limits the family-wise error rate to that
    level, for any dependence of the tests.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979).
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return adjusted


def robust_spread(values: np.ndarray) -> float:
    """Standard deviation estimated from the interquartile range (normal); 0 without values."""
    if not len(values):
        return 0.0
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / NORMAL_IQR
