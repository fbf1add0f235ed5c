"""Figures of input, reconstruction, ground truth and anomaly map (as the paper's Figure 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.deco.geometry import as_seen
from decodiff_pipeline.evaluation.predictions import file_stem
from decodiff_pipeline.evaluation.protocols import mask_by
from decodiff_pipeline.reporting.gallery import verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.config import EvaluationConfig, Protocol
    from decodiff_pipeline.evaluation.predictions import PredictionStore

COLUMNS = ("input", "reconstruction", "ground truth", "anomaly map")
PANEL = 1.7  # inches
LABEL_WIDTH = 1.9  # inches
HEADER = 0.6  # inches
PATH_LINE = 24  # characters of a line beside a row
COLOURS = {"good": "#2b7bba", "uncertain": "#e0a100", "defective": "#c8372d"}


@dataclass(frozen=True)
class Panel:
    """One row of a figure: an image."""

    row: Any  # row of the predictions' index
    verdict: str  # see `gallery.verdict`


def draw_figures(
    index: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    thresholds: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Figure]:
    """Draw a figure for each category that has test images.

    Args:
        index: Index of the predictions, labelled by the protocol (`protocols.labelled`).

    Returns:
        `predictions.file_stem` of the category → figure.
    """
    figures = {}
    for category, rows in index[index["split"] == "test"].groupby("category", sort=True):
        threshold = thresholds["categories"].get(category, {}).get("threshold")
        panels = choose(rows, threshold, config.gallery_size)
        figures[file_stem(str(category))] = _draw(
            str(category), panels, predictions, images, config.protocol
        )
    return figures


def choose(rows: pd.DataFrame, threshold: float | None, size: int) -> list[Panel]:
    """Defective images with the lowest scores, those with the highest, and the highest good ones.

    Args:
        rows: Test images of one category.
        threshold: Smallest score at which an image is flagged.
        size: Largest number of images per group; no image appears twice. Uncertain images are
            shown only if there are no others.
    """
    ordered = rows.sort_values("score", kind="stable")
    defective = ordered[ordered["label"] == "defective"]
    good = ordered[ordered["label"] == "good"]
    lowest = defective.head(size)
    chosen = [
        lowest,
        defective.drop(lowest.index).tail(size).iloc[::-1],
        good.tail(size).iloc[::-1],
    ]
    if defective.empty and good.empty:
        chosen = [ordered.tail(size).iloc[::-1]]
    together = pd.concat(chosen)
    verdicts = [
        verdict(label, score, threshold)
        for label, score in zip(together["label"], together["score"], strict=True)
    ]
    return [Panel(*pair) for pair in zip(together.itertuples(), verdicts, strict=True)]


def _draw(
    category: str,
    panels: list[Panel],
    predictions: PredictionStore,
    images: ImageFolder,
    protocol: Protocol,
) -> Figure:
    from matplotlib.figure import Figure

    maps, reconstructions = predictions.maps(category), predictions.reconstructions(category)
    geometry = predictions.geometry()
    height = PANEL * len(panels) + HEADER
    figure = Figure(figsize=(LABEL_WIDTH + PANEL * len(COLUMNS), height))
    axes = figure.subplots(len(panels), len(COLUMNS), squeeze=False)
    figure.subplots_adjust(
        left=LABEL_WIDTH / figure.get_figwidth(), right=0.995, bottom=0.08 / height,
        top=1 - HEADER / height, wspace=0.03, hspace=0.03,
    )  # fmt: skip
    largest = max(float(maps[panel.row.row].max()) for panel in panels)
    for line, panel in zip(axes, panels, strict=True):
        row = panel.row
        _show_image(line[0], as_seen(images.read(row.path), geometry))
        _show_image(line[1], reconstructions[row.row])
        if row.label == "good":
            _show_text(line[2], "no defect")
        elif pd.isna(row.mask_path):
            _show_text(line[2], "no mask")
        else:
            mask = mask_by(protocol, images.read_mask(row.mask_path), geometry)
            _show_image(line[2], mask, cmap="gray", vmin=0, vmax=1)
        _show_image(line[3], maps[row.row], cmap="inferno", vmin=0, vmax=largest or 1)
        _caption(line[0], panel)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=9)
    title = f"{_without_math(category)} (protocol {protocol})"
    figure.suptitle(title, fontsize=12, y=1 - 0.12 / height, va="top")
    return figure


def _show_image(axis: Axes, image: np.ndarray, **options: Any) -> None:
    axis.imshow(image, interpolation="nearest", **options)
    _remove_ticks(axis)


def _show_text(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", color="0.45", fontsize=9,
              transform=axis.transAxes)  # fmt: skip
    axis.set_box_aspect(1)
    _remove_ticks(axis)


def _remove_ticks(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.8")


def _caption(axis: Axes, panel: Panel) -> None:
    row = panel.row
    kind = [] if row.defect_type in {"good", row.label} else [str(row.defect_type)]
    text = "\n".join(["", *kind, f"score {row.score:.4f}", *_path_lines(str(row.path))])
    colour = COLOURS[row.label]
    options: dict[str, Any] = {"transform": axis.transAxes, "ha": "right", "va": "top"}
    axis.text(-0.06, 0.97, panel.verdict, fontsize=9, weight="bold", color=colour, **options)
    text = _without_math(text)
    axis.text(-0.06, 0.97, text, fontsize=7.5, color="0.25", linespacing=1.3, **options)


def _path_lines(path: str) -> list[str]:
    """The end of a path in at most three lines, broken after slashes if possible."""
    lines = [""]
    for part in re.findall(r"[^/]*/|[^/]+", path):
        if len(lines[-1]) + len(part) > PATH_LINE:
            lines.append("")
        lines[-1] += part
    return [line if len(line) <= PATH_LINE else f"…{line[1 - PATH_LINE :]}" for line in lines[-3:]]


def _without_math(text: str) -> str:
    """Escape ``$``, which starts a formula in matplotlib."""
    return text.replace("$", r"\$")
