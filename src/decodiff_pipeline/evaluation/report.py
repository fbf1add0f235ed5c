"""The evaluation as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.evaluation.figures import draw_histogram
from decodiff_pipeline.evaluation.predictions import file_stem
from decodiff_pipeline.evaluation.summary import (
    COMPARED,
    METRICS,
    beats,
    mean_over_categories,
    measured,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure

RESOLUTION = 110  # dots an inch


def render_report(
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    index: pd.DataFrame,
    about: Mapping[str, Any],
    figures: Mapping[str, Figure],
) -> str:
    """Render the report, every value escaped and every picture embedded.

    Args:
        metrics: As `assessment.assess` returns them.
        thresholds: As `thresholds.fit_thresholds` returns them.
        index: Of the predictions, labelled by the protocol (`protocols.labelled`).
        about: As `predictions.PredictionStore.about` returns it.
        figures: As `figures.draw_figures` returns them.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("decodiff_pipeline.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["percent"] = percent
    environment.filters["setting"] = setting
    floors = metrics["baseline"].get("pca", {})
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        names={name: METRICS[name] for name in measured(metrics)},
        compared=[METRICS[name] for name in COMPARED],
        table=_table(metrics, floors),
        sections=[
            _section(name, metrics, thresholds, index, figures) for name in metrics["categories"]
        ],
        false_positive_rate=thresholds["false_positive_rate"],
        about=about,
        counts=_counts(index),
    )


def number(value: float | None) -> str:
    """Three decimals, or a dash for nothing."""
    return "-" if value is None else f"{value:.3f}"


def setting(value: object) -> str:
    """A parameter, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    """One decimal and a percent sign, or a dash for nothing."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _table(metrics: Mapping[str, Any], floors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The categories and their mean, each with its floor and whether it is beaten, by metric."""
    rows = [(name, row, floors.get(name, {})) for name, row in metrics["categories"].items()]
    rows.append(("mean", metrics["mean"], mean_over_categories(floors)))
    return [
        {
            "name": name,
            "ours": row,
            "floor": floor,
            "missed": [m for m in COMPARED if beats(row[m], floor.get(m)) is False],
        }
        for name, row, floor in rows
    ]


def _section(
    name: str,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    index: pd.DataFrame,
    figures: Mapping[str, Figure],
) -> dict[str, Any]:
    rows = index[(index["category"] == name) & (index["split"] == "test")]
    threshold = thresholds["categories"].get(name, {})
    figure = figures.get(file_stem(name))
    return {
        "name": name,
        "anchor": file_stem(name),
        "metrics": metrics["categories"][name],
        "threshold": threshold,
        "figure": None if figure is None else picture(figure),
        "histogram": picture(draw_histogram(rows, threshold.get("threshold"))),
    }


def _counts(index: pd.DataFrame) -> dict[str, int]:
    return {str(split): int(count) for split, count in index["split"].value_counts().items()}


def picture(figure: Figure) -> str:
    """A figure as a data URI (PNG)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
