"""From measured images to an answer and its page: has anything changed?"""

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
NOTHING = pd.Series(dtype=float)
NAMED = 3  # features and images that a sentence names
THUMBNAIL = 160  # pixels, the longer side
LISTED = 100  # unreadable images on the page; the JSON has all


def judge(
    reference: Mapping[str, Any], recent: pd.DataFrame, config: MonitoringConfig
) -> dict[str, Any]:
    """Test every feature of every category, all of them as one family.

    An alarm is a test whose p-value, corrected by Holm over categories and features, is at most
    `false_alarm_rate`, and whose distance is at least `min_distance`. The population stability
    index alarms nobody: of 50 images its average is 0.3 where nothing has changed.

    Args:
        reference: As `make_reference` returned it.
        recent: As `measure_recent` returned it.
        config: When to alarm.

    Returns:
        JSON-ready: ``retrain``, ``why`` (sentences), ``categories`` (each with ``status``,
        ``images`` and ``features``), ``unknown_categories`` (images by name), ``unreadable``,
        ``unusual`` (images, the most unusual first), and the parameters of the alarm.
    """
    usable = recent[recent["known"] & (recent["error"] == "")]
    categories = {
        str(name): _compared(reference["categories"][name]["values"], rows, config)
        for name, rows in recent[recent["known"]].groupby("category", sort=True)
    }
    _correct(categories, config)
    unreadable = recent[recent["error"] != ""]
    answer = {
        "retrain": any(one["status"] == DRIFT for one in categories.values()),
        "categories": categories,
        "unknown_categories": _counted(recent[~recent["known"]]),
        "unreadable": unreadable[["category", "path", "error"]].to_dict("records"),
        "unusual": _unusual(reference, usable, config.unusual_images),
        "correction": "Holm, over all features of all categories",
        "n_tests": sum(len(one["features"]) for one in categories.values()),
        "false_alarm_rate": config.false_alarm_rate,
        "min_distance": config.min_distance,
        "min_images": config.min_images,
        "model": dict(reference["model"]),
    }
    return {"retrain": answer["retrain"], "why": _why(answer), **answer}


def render_text(answer: Mapping[str, Any]) -> str:
    """The verdict for a terminal: whether anything drifts, and why."""
    found = {category["status"] for category in answer["categories"].values()}
    verdict = next((status for status in (DRIFT, STABLE) if status in found), TOO_FEW)
    return "\n".join([f"monitoring: {verdict}", *answer["why"]])


def _compared(
    values: Mapping[str, list[float]], rows: pd.DataFrame, config: MonitoringConfig
) -> dict[str, Any]:
    """A category's tests, of the features that enough images of both sides have."""
    readable = rows[rows["error"] == ""]
    features = {}
    enough = False
    for feature, reference in values.items():
        recent = readable.get(feature, NOTHING).dropna().to_numpy(float)
        if len(recent) < config.min_images or len(reference) < config.min_reference:
            continue
        enough = True
        found = compare(np.asarray(reference, float), recent)
        if found is not None:
            features[feature] = _test(feature, found, len(reference), len(recent))
    return {
        "status": STABLE if enough else TOO_FEW,
        "images": len(readable),
        "unreadable": len(rows) - len(readable),
        "reference_images": max(map(len, values.values()), default=0),
        "features": features,
    }


def _test(feature: str, found: Comparison, reference: int, recent: int) -> dict[str, Any]:
    return {
        "label": label(feature),
        "n_reference": reference,
        "n": recent,
        "median_reference": found.medians[0],
        "median": found.medians[1],
        "shift": found.shift,
        "distance": found.distance,
        "p_value": found.p_value,
        "p_adjusted": None,
        "psi": found.psi,
        "psi_expected": found.psi_expected,
        "drift": False,
    }


def _correct(categories: dict[str, dict[str, Any]], config: MonitoringConfig) -> None:
    """Fill in what depends on all tests together."""
    tests = [
        (category, test)
        for category in categories.values()
        for test in category["features"].values()
    ]
    adjusted = holm([test["p_value"] for _, test in tests])
    for (category, test), p_value in zip(tests, adjusted, strict=True):
        certain = p_value <= config.false_alarm_rate
        test["p_adjusted"] = float(p_value)
        test["drift"] = bool(certain and test["distance"] >= config.min_distance)
        if test["drift"]:
            category["status"] = DRIFT


def _unusual(reference: Mapping[str, Any], usable: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    """The images furthest from the reference's median in any feature, in robust deviations."""
    found = []
    for name, rows in usable[usable["path"] != ""].groupby("category", sort=True):
        values = reference["categories"][name]["values"]
        spreads = {feature: robust_spread(np.asarray(v)) for feature, v in values.items()}
        features = [f for f, spread in spreads.items() if spread > 0 and f in rows]
        medians = np.array([np.median(values[feature]) for feature in features])
        scale = np.array([spreads[feature] for feature in features])
        away = np.abs(rows[features].to_numpy(float) - medians) / scale
        for path, distances in zip(rows["path"], away, strict=True):
            if features:
                worst = int(np.nanargmax(distances))
                found.append((float(distances[worst]), str(name), path, features[worst]))
    found.sort(key=lambda one: (-one[0], *one[1:]))
    return [
        {"category": name, "path": path, "feature": feature, "deviations": distance}
        for distance, name, path, feature in found[:most]
    ]


def _counted(rows: pd.DataFrame) -> dict[str, int]:
    return {str(name): int(n) for name, n in rows["category"].value_counts().sort_index().items()}


def _why(answer: Mapping[str, Any]) -> list[str]:
    """The answer in sentences."""
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
        sentences.append(
            f"The model does not know the categories {names}; nothing is said of them."
        )
    if bad := answer["unreadable"]:
        first = ", ".join(one["path"] for one in bad[:NAMED])
        sentences.append(f"{len(bad)} images cannot be read, the first: {first}.")
    return sentences or ["Nothing differs from the reference."]


def _sentence(name: str, category: Mapping[str, Any]) -> str:
    drifted = {key: test for key, test in category["features"].items() if test["drift"]}
    ranked = sorted(drifted.values(), key=lambda test: (test["p_adjusted"], -test["distance"]))
    said = ", ".join(
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
    return f"{name}: {category['images']} images differ in {said}{more}; {advice}."


def render_report(answer: Mapping[str, Any], source: RecentSource) -> str:
    """Render an answer as one HTML page that loads nothing from elsewhere.

    Args:
        source: Where the thumbnails come from.
    """
    unusual = [one | {"picture": _thumbnail(source, one["path"])} for one in answer["unusual"]]
    return render_page(
        "monitoring.html.j2",
        answer=answer,
        unusual=unusual,
        unreadable=answer["unreadable"][:LISTED],
        label=label,
    )


def _thumbnail(source: RecentSource, path: str) -> str | None:
    """A small PNG as a data URI; ``None`` where the image is not there any more."""
    try:
        image = source.read(path)
    except ImageError:
        return None
    return thumbnail_uri(image, THUMBNAIL)
