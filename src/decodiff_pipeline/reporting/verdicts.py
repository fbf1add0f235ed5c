"""What became of an image at its threshold, and which images tell most about a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSED, FALSE_ALARM, DETECTED, PASSED = "missed", "false alarm", "detected", "passed"
WRONG = (MISSED, FALSE_ALARM)


def verdict(label: str, score: float, threshold: float | None) -> str:
    """One of the four verdicts; the label itself where it is uncertain or no threshold is known.

    Args:
        label: "good", "defective" or "uncertain".
        score: Of the image.
        threshold: From which score on an image is flagged.
    """
    if threshold is None or label == "uncertain":
        return label
    flagged = score >= threshold
    if label == "defective":
        return DETECTED if flagged else MISSED
    return FALSE_ALARM if flagged else PASSED


def rank_hard_examples(rows: pd.DataFrame, thresholds: Mapping[str, float | None]) -> pd.DataFrame:
    """Order images so that whoever stops looking early has seen what matters.

    Wrong decisions come first, those furthest on the wrong side of the threshold at the head;
    then the others, closest to the threshold first. Scores of two categories have no common
    scale, so categories take turns.

    Args:
        rows: Images with ``category``, ``label`` and ``score``.
        thresholds: Category → threshold.

    Returns:
        The rows in that order, with the column ``verdict``.
    """
    limits = rows["category"].map(thresholds).astype(float)
    facts = zip(rows["label"], rows["score"], rows["category"], strict=True)
    rows = rows.assign(
        verdict=[verdict(label, score, thresholds.get(name)) for label, score, name in facts]
    )
    distance = (rows["score"].astype(float) - limits).abs()
    wrong = rows["verdict"].isin(WRONG)
    # Without a threshold the highest scores tell most.
    key = distance.where(~wrong, -distance).fillna(-rows["score"].astype(float))
    ordered = pd.DataFrame({"category": rows["category"], "right": ~wrong, "key": key})
    ordered = ordered.sort_values(["right", "key"], kind="stable")
    turn = ordered.groupby(["category", "right"]).cumcount()
    ordered = ordered.assign(turn=turn).sort_values(["right", "turn", "category"])
    return rows.loc[ordered.index]
