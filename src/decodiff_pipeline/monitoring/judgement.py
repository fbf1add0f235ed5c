"""Tests measured images for drift and renders the result as text and HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.metrics.image_quality import QUALITY
from decodiff_pipeline.monitoring.drift import Comparison, compare, holm, robust_spread
from decodiff_pipeline.monitoring.features import label
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import thumbnail_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.monitoring.config import MonitoringConfig
    from decodiff_pipeline.monitoring.source import RecentSource

DRIFT, STABLE, TOO_FEW = "drift", "no drift", "too few to say"
EMPTY = pd.Series(dtype=float)
NAMED = 3  # features and images listed in a sentence
THUMBNAIL = 160  # pixels, the longer side
LISTED = 100  # unreadable images on the page; the JSON has all


def judge(
    reference: Mapping[str, Any], recent: pd.DataFrame, config: MonitoringConfig
) -> dict[str, Any]:
    """Test every feature of every category for drift.

    A feature drifts if its p-value, with Holm's correction over all categories and features, is at
    most `false_alarm_rate` and its distance is at least `min_distance`. The population stability
    index is reported only: without drift its mean is 0.3 for 50 images.

    Args:
        reference: See `make_reference`.
        recent: See `measure_recent`.

    Returns:
        JSON values: ``retrain``, ``why`` (sentences), ``categories`` (each with ``status``,
        ``images`` and ``features``), ``unknown_categories`` (name → number of images),
        ``unreadable``, ``unusual`` (images, the most unusual first), and the conditions of the
        alarm.
    """
    usable = recent[recent["known"] & (recent["error"] == "")]
    categories = {
        str(name): _test_category(reference["categories"][name]["values"], rows, config)
        for name, rows in recent[recent["known"]].groupby("category", sort=True)
    }
    _apply_correction(categories, config)
    unreadable = recent[recent["error"] != ""]
    unknown = recent[~recent["known"]]["category"].value_counts().sort_index()
    answer = {
        "retrain": any(category["status"] == DRIFT for category in categories.values()),
        "categories": categories,
        "unknown_categories": {str(name): int(count) for name, count in unknown.items()},
        "unreadable": unreadable[["category", "path", "error"]].to_dict("records"),
        "unusual": _unusual(reference, usable, config.unusual_images),
        "correction": "Holm, over all features of all categories",
        "n_tests": sum(len(category["features"]) for category in categories.values()),
        "false_alarm_rate": config.false_alarm_rate,
        "min_distance": config.min_distance,
        "min_images": config.min_images,
        "model": dict(reference["model"]),
    }
    return {"retrain": answer["retrain"], "why": _why(answer), **answer}


def render_text(answer: Mapping[str, Any]) -> str:
    """The result for the terminal: whether there is drift, and the reasons."""
    statuses = {category["status"] for category in answer["categories"].values()}
    verdict = next((status for status in (DRIFT, STABLE) if status in statuses), TOO_FEW)
    return "\n".join([f"monitoring: {verdict}", *answer["why"]])


def _test_category(
    values: Mapping[str, list[float]], rows: pd.DataFrame, config: MonitoringConfig
) -> dict[str, Any]:
    """The tests of the features with enough recent and reference values."""
    readable = rows[rows["error"] == ""]
    features = {}
    enough = False
    for feature, reference in values.items():
        recent = readable.get(feature, EMPTY).dropna().to_numpy(float)
        if len(recent) < config.min_images or len(reference) < config.min_reference:
            continue
        enough = True
        comparison = compare(np.asarray(reference, float), recent)
        if comparison is not None:
            features[feature] = _test_row(feature, comparison, len(reference), len(recent))
    return {
        "status": STABLE if enough else TOO_FEW,
        "images": len(readable),
        "unreadable": len(rows) - len(readable),
        "reference_images": max(map(len, values.values()), default=0),
        "features": features,
    }


def _test_row(feature: str, comparison: Comparison, reference: int, recent: int) -> dict[str, Any]:
    return {
        "label": label(feature),
        "n_reference": reference,
        "n": recent,
        "median_reference": comparison.medians[0],
        "median": comparison.medians[1],
        "shift": comparison.shift,
        "distance": comparison.distance,
        "p_value": comparison.p_value,
        "p_adjusted": None,
        "psi": comparison.psi,
        "psi_expected": comparison.psi_expected,
        "drift": False,
    }


def _apply_correction(categories: dict[str, dict[str, Any]], config: MonitoringConfig) -> None:
    """Set ``p_adjusted`` and ``drift`` of the tests and ``status`` of the categories."""
    tests = [
        (category, test)
        for category in categories.values()
        for test in category["features"].values()
    ]
    adjusted = holm([test["p_value"] for _, test in tests])
    for (category, test), p_value in zip(tests, adjusted, strict=True):
        significant = p_value <= config.false_alarm_rate
        test["p_adjusted"] = float(p_value)
        test["drift"] = bool(significant and test["distance"] >= config.min_distance)
        if test["drift"]:
            category["status"] = DRIFT


def _unusual(
    reference: Mapping[str, Any], usable: pd.DataFrame, count: int
) -> list[dict[str, Any]]:
    """Images by their largest deviation in a feature, in robust standard deviations."""
    images = []
    for name, rows in usable[usable["path"] != ""].groupby("category", sort=True):
        values = reference["categories"][name]["values"]
        spreads = {feature: robust_spread(np.asarray(v)) for feature, v in values.items()}
        features = [f for f, spread in spreads.items() if spread > 0 and f in rows]
        medians = np.array([np.median(values[feature]) for feature in features])
        scale = np.array([spreads[feature] for feature in features])
        deviations = np.abs(rows[features].to_numpy(float) - medians) / scale
        for path, row in zip(rows["path"], deviations, strict=True):
            if features:
                largest = int(np.nanargmax(row))
                images.append((float(row[largest]), str(name), path, features[largest]))
    images.sort(key=lambda image: (-image[0], *image[1:]))
    return [
        {"category": name, "path": path, "feature": feature, "deviations": deviation}
        for deviation, name, path, feature in images[:count]
    ]


def _why(answer: Mapping[str, Any]) -> list[str]:
    """The result as sentences."""
    sentences = []
    for name, category in answer["categories"].items():
        if category["status"] == DRIFT:
            sentences.append(_sentence(name, category))
        elif category["status"] == TOO_FEW:
            sentences.append(
                f"{name}: {category['images']} readable images, or its reference, are too few to "
                f"say (monitoring.min_images is {answer['min_images']})."
            )
    if unknown := answer["unknown_categories"]:
        names = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        sentences.append(f"The model does not have the categories {names}: they are not tested.")
    if unreadable := answer["unreadable"]:
        first = ", ".join(image["path"] for image in unreadable[:NAMED])
        sentences.append(f"{len(unreadable)} images cannot be read, the first: {first}.")
    return sentences or ["Nothing differs from the reference."]


def _sentence(name: str, category: Mapping[str, Any]) -> str:
    drifted = {key: test for key, test in category["features"].items() if test["drift"]}
    ranked = sorted(drifted.values(), key=lambda test: (test["p_adjusted"], -test["distance"]))
    features = ", ".join(
        f"{test['label']} (median {test['median_reference']:.3g} → {test['median']:.3g}, "
        f"p {test['p_adjusted']:.1g})"
        for test in ranked[:NAMED]
    )
    more = f" and {len(ranked) - NAMED} more" if len(ranked) > NAMED else ""
    advice = (
        "look at camera, light and lens before retraining"
        if any(key in QUALITY for key in drifted)
        else "the products, or what the camera points at, have changed"
    )
    return f"{name}: {category['images']} images differ in {features}{more}; {advice}."


def render_report(answer: Mapping[str, Any], source: RecentSource) -> str:
    """Render the result of `judge` as one self-contained HTML page.

    Args:
        source: Source of the thumbnails.
    """
    unusual = [
        image | {"picture": _thumbnail(source, image["path"])} for image in answer["unusual"]
    ]
    return render_page(
        "monitoring.html.j2",
        answer=answer,
        unusual=unusual,
        unreadable=answer["unreadable"][:LISTED],
        label=label,
    )


def _thumbnail(source: RecentSource, path: str) -> str | None:
    """The data URI of a PNG; ``None`` if the image cannot be read any more."""
    try:
        image = source.read(path)
    except ImageError:
        return None
    return thumbnail_uri(image, THUMBNAIL)
