"""Metrics from counts at each level: a level is a distinct score, or a bin of scores.

All functions take levels along the last axis, ascending, and any number of axes before it, one of
resamples for instance. A pixel or image counts as detected where its score is at least the level.
"""

from __future__ import annotations

import numpy as np

TINY = np.finfo(np.float64).tiny


def ranking(
    defective: np.ndarray,
    above: np.ndarray,
    at: np.ndarray,
    total: np.ndarray,
    *,
    mixed: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUROC, average precision and the best F1.

    Args:
        defective: (…, U), how many defective ones have each level; above 0 in sum.
        above: (…, U), how many defect-free ones lie above each level.
        at: (…, U), how many defect-free ones have each level.
        total: (…, 1), all defect-free ones; above 0.
        mixed: Levels are bins, in which the two kinds lie evenly mixed: the precision of a bin's
            defective ones is that in its middle. Otherwise they are equal scores, all detected
            at once.

    Returns:
        Three arrays (…,) within 0…1.
    """
    positives = defective.sum(-1, keepdims=True)
    true = positives - defective.cumsum(-1) + defective  # detected with the level as threshold
    false = above + at
    # Of all pairs of a defective and a defect-free one, those in the right order; ties half.
    ordered = (defective * (total - above - at / 2)).sum(-1, keepdims=True)
    reached, alarms = (true - (defective - 1) / 2, above + at / 2) if mixed else (true, false)
    precision = reached / np.maximum(reached + alarms, TINY)
    return (
        (ordered / positives / total)[..., 0],
        (defective * precision).sum(-1) / positives[..., 0],
        (2 * true / (positives + true + false)).max(-1),
    )


def overlap_area(
    overlap: np.ndarray, before: np.ndarray, after: np.ndarray, limit: float
) -> np.ndarray:
    """AUPRO: area under the region overlap up to a false-positive rate, divided by that.

    A level lifts the overlap by its share, on a straight line from the false-positive rate
    ``before`` it to that ``after`` it. The curve is the sum of these ramps, so its area up to the
    limit is the sum of theirs.

    Args:
        overlap: (…, U), mean over regions of the share of the region that has the level.
        before: (…, U), false-positive rate with all levels above this one detected.
        after: (…, U), the same with this one too.
        limit: In (0, 1].

    Returns:
        (…,), within 0…1.
    """
    end = np.minimum(after, limit)
    start = np.minimum(before, limit)
    width = after - before
    height = np.divide(end - start, width, out=np.ones_like(width), where=width > 0)
    area = (end - start) * height / 2 + (limit - end)
    return (overlap * area).sum(-1) / limit
