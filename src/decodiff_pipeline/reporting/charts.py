"""Geometry of the report's charts: curves and histograms as paths of an SVG."""

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
# title, axes, and the key in the curves of a category with its two columns, by what is measured
KINDS = (
    ("ROC", "false-positive rate", "true-positive rate", "roc", ("fpr", "tpr")),
    ("Precision and recall", "recall", "precision", "pr", ("recall", "precision")),
)


@dataclass(frozen=True)
class Line:
    """A curve."""

    name: str  # for the legend: "image", "pixel" or "region"
    path: str  # the attribute ``d``, within WIDTH by HEIGHT, y down


@dataclass(frozen=True)
class Chart:
    """Curves on common axes: from 0 to ``right`` across, from 0 to 1 upwards."""

    title: str
    x: str
    y: str
    right: float
    lines: list[Line]


@dataclass(frozen=True)
class Strip:
    """The scores of one label, as bars within STRIP_WIDTH by STRIP_HEIGHT, y down."""

    label: str
    count: int  # images
    path: str


@dataclass(frozen=True)
class Histogram:
    """Strips on a common axis; they share the bins, but each fills its height."""

    strips: list[Strip]
    ticks: list[tuple[float, str]]  # position along the axis, and text
    threshold: float | None  # its position


def draw_curves(curves: Mapping[str, Any], limit: float) -> list[Chart]:
    """The charts of one category; none where nothing could be measured.

    Args:
        curves: Of one category, as ``curves.json`` has them.
        limit: False-positive rate up to which AUPRO integrates; the chart ends there.
    """
    charts = []
    for title, x, y, kind, (across, upwards) in KINDS:
        lines = [
            Line(name, _polyline(curve[across], curve[upwards], 1.0))
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
    """The scores of one category's test images by label; ``None`` without images.

    Args:
        rows: Test images of one category, with ``label`` and ``score``.
        threshold: From which score on an image is flagged.
    """
    if rows.empty:
        return None
    scores = rows["score"].to_numpy(np.float64)
    shown = scores if threshold is None else np.append(scores, threshold)
    edges = np.histogram_bin_edges(shown, bins=BINS)
    strips = []
    for label in LABELS:
        group = scores[(rows["label"] == label).to_numpy()]
        if len(group):
            strips.append(Strip(label, len(group), _bars(np.histogram(group, edges)[0])))
    low, high = edges[0], edges[-1]

    def place(value: float) -> float:
        return round(float((value - low) / (high - low)) * STRIP_WIDTH, 1)

    ticks = [(place(value), f"{value:.3g}") for value in _round_values(low, high)]
    return Histogram(strips, ticks, None if threshold is None else place(threshold))


def _polyline(xs: Sequence[float], ys: Sequence[float], right: float) -> str:
    """A path through points with x up to a limit, the last one interpolated there."""
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
    # The square root of the count: a single image must be seen beside hundreds.
    heights = np.sqrt(counts / counts.max()) * STRIP_HEIGHT
    return "".join(
        f"M{i * width:.1f} {STRIP_HEIGHT}v{-height:.1f}h{width - 1:.1f}v{height:.1f}z"
        for i, height in enumerate(heights)
        if height
    )


def _round_values(low: float, high: float) -> np.ndarray:
    """About five multiples of 1, 2 or 5 · 10^n within a range."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
