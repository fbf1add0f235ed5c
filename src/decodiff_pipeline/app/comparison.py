"""Comparison of two model versions on the same test images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from decodiff_pipeline.app import inspection
from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.reporting.page import render_macro

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from decodiff_pipeline.app.served_versions import LoadedVersion

SHOWN = 6  # images that are shown with the maps of both versions


def differences(one: LoadedVersion, other: LoadedVersion) -> pd.DataFrame:
    """The test images that both versions scored, the largest difference first.

    Images with different decisions come first. Within both groups the order is by the difference of
    score / threshold, because the scores of two models have different scales.

    Returns:
        Columns ``category``, ``label``, ``path``, ``sha256``, ``score_one``, ``score_other``,
        ``threshold_one``, ``threshold_other`` (NaN for none), ``decision_one``, ``decision_other``,
        ``agreed``.
    """
    tests = [version.scores[version.scores["split"] == "test"] for version in (one, other)]
    keys = ["category", "label", "path", "sha256"]
    found = tests[0][[*keys, "score"]].merge(
        tests[1][["category", "sha256", "score"]],
        on=["category", "sha256"], suffixes=("_one", "_other"),
    )  # fmt: skip
    for version, side in ((one, "one"), (other, "other")):
        limits = {name: version.scorer.threshold(name) for name in found["category"].unique()}
        found[f"threshold_{side}"] = found["category"].map(limits).astype(float)
        pairs = zip(found[f"score_{side}"], found[f"threshold_{side}"], strict=True)
        found[f"decision_{side}"] = [
            decide(score, limit if limit == limit else None)  # noqa: PLR0124 - NaN
            for score, limit in pairs
        ]
    shares = [found[f"score_{side}"] / found[f"threshold_{side}"] for side in ("one", "other")]
    apart = (shares[0] - shares[1]).abs().fillna(0)
    agreed = found["decision_one"] == found["decision_other"]
    order = found.assign(agreed=agreed, apart=apart)
    return order.sort_values(["agreed", "apart"], ascending=[True, False]).drop(columns="apart")


def render_comparison(one: LoadedVersion, other: LoadedVersion, raw: Path) -> str:
    """HTML: the number of different decisions, and the images that differ most with both maps.

    Raises:
        DataError: No test image was scored by both versions.
    """
    found = differences(one, other)
    if found.empty:
        raise DataError(
            f"versions {one.number} and {other.number} have no scored test image in common; "
            "a promotion scores both on the current test images"
        )
    different = int((~found["agreed"]).sum())
    parts = [f"<p>{different} of {len(found)} test images are decided differently.</p>"]
    for row in found.head(SHOWN).to_dict("records"):
        parts.append(_render_pair(row, one, other, raw))
    return "".join(parts)


def _render_pair(row: dict[Any, Any], one: LoadedVersion, other: LoadedVersion, raw: Path) -> str:
    sides = [
        (
            f"version {version.number}: {row[f'decision_{side}']}, {row[f'score_{side}']:.3f}",
            _render_overlay(version, row, raw),
        )
        for version, side in ((one, "one"), (other, "other"))
    ]
    title = f"{row['category']}, {row['label']}: {row['path']}"
    return render_macro(inspection.TEMPLATE, "pair", title, sides)


def _render_overlay(version: LoadedVersion, row: dict[Any, Any], raw: Path) -> str:
    try:
        data = (raw / row["path"]).read_bytes()
    except OSError:
        return Markup("<p>The image is not in the data set any more.</p>")
    result = inspection.inspect_one(version.scorer, row["path"], data, row["category"])
    if result.answer is None:
        return Markup("<p>{}</p>").format(result.error)
    image = inspection.decode_image(result, version.scorer.pipeline)
    return inspection.render_layers(image, result.answer)
