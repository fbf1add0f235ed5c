"""The report's charts: ROC, precision-recall and PRO curves and score histograms as SVG paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

WIDTH, HEIGHT = 260, 200  # of the plot area of curves, in units of the SVG
STRIP_WIDTH, STRIP_HEIGHT = 640, 46  # of each label's strip in a histogram
BINS = 48
LABELS = ("good", "uncertain", "defective")
# title, x axis, y axis, suffix of the key in curves.json, and its two columns
CURVES = (
    ("ROC", "false-positive rate", "true-positive rate", "roc", ("fpr", "tpr")),
    ("Precision and recall", "recall", "precision", "pr", ("recall", "precision")),
)


@dataclass(frozen=True)
class Line:
    """A curve of a chart."""

    name: str  # for the legend: "image", "pixel" or "region"
    path: str  # SVG path data within WIDTH by HEIGHT, y axis downwards


@dataclass(frozen=True)
class Chart:
    """Curves on common axes: x from 0 to ``right``, y from 0 to 1."""

    title: str
    x: str  # label of the x axis
    y: str  # label of the y axis
    right: float  # largest x
    lines: list[Line]


@dataclass(frozen=True)
class Strip:
    """The score histogram of one label."""

    label: str
    count: int  # images
    path: str  # SVG path data within STRIP_WIDTH by STRIP_HEIGHT, y axis downwards


@dataclass(frozen=True)
class Histogram:
    """Score histograms on a common axis with common bins, each scaled to its own maximum."""

    strips: list[Strip]
    ticks: list[tuple[float, str]]  # position in SVG units, and text
    threshold: float | None  # position in SVG units


def draw_curves(curves: Mapping[str, Any], limit: float) -> list[Chart]:
    """The charts of one category.

    Args:
        curves: Entry of the category in ``curves.json``; missing curves are left out.
        limit: Upper integration limit of AUPRO (false-positive rate); the PRO chart ends there.
    """
    charts = []
    for title, x, y, kind, (x_column, y_column) in CURVES:
        lines = [
            Line(name, _polyline(curve[x_column], curve[y_column], 1.0))
            for name in ("image", "pixel")
            if (curve := curves.get(f"{name}_{kind}"))
        ]
        if lines:
            charts.append(Chart(title, x, y, 1.0, lines))
    if pro := curves.get("pro"):
        path = _polyline(pro["fpr"], pro["overlap"], limit)
        label = "false-positive rate of pixels"
        charts.append(Chart("PRO", label, "overlap of regions", limit, [Line("region", path)]))
    return charts


def draw_histogram(rows: pd.DataFrame, threshold: float | None) -> Histogram | None:
    """Score histograms of one category's test images by label; ``None`` without images.

    Args:
        rows: Test images of one category, with ``label`` and ``score``.
        threshold: Smallest score at which an image is flagged.
    """
    if rows.empty:
        return None
    scores = rows["score"].to_numpy(np.float64)
    values = scores if threshold is None else np.append(scores, threshold)
    edges = np.histogram_bin_edges(values, bins=BINS)
    strips = []
    for label in LABELS:
        group = scores[(rows["label"] == label).to_numpy()]
        if len(group):
            strips.append(Strip(label, len(group), _bars(np.histogram(group, edges)[0])))
    low, high = edges[0], edges[-1]

    def position(value: float) -> float:
        return round(float((value - low) / (high - low)) * STRIP_WIDTH, 1)

    ticks = [(position(value), f"{value:.3g}") for value in _tick_values(low, high)]
    return Histogram(strips, ticks, None if threshold is None else position(threshold))


def _polyline(xs: Sequence[float], ys: Sequence[float], right: float) -> str:
    """A path through the points with x ≤ `right`; the curve is interpolated at `right`."""
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    if len(x) and x.max() > right:
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
        end = np.interp(right, x, y)
        x, y = np.append(x[x <= right], right), np.append(y[x <= right], end)
    points = zip(x / right * WIDTH, (1 - y) * HEIGHT, strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _bars(counts: np.ndarray) -> str:
    width = STRIP_WIDTH / len(counts)
    # Square root of the count, so that a single image is visible beside hundreds.
    heights = np.sqrt(counts / counts.max()) * STRIP_HEIGHT
    return "".join(
        f"M{i * width:.1f} {STRIP_HEIGHT}v{-height:.1f}h{width - 1:.1f}v{height:.1f}z"
        for i, height in enumerate(heights)
        if height
    )


def _tick_values(low: float, high: float) -> np.ndarray:
    """About five multiples of 1, 2 or 5 · 10^n within a range."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
