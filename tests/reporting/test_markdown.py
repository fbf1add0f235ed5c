"""The summary for a pull request."""

from __future__ import annotations

from typing import Any

import pytest

from decodiff_pipeline.reporting.markdown import escaped, render_summary

NOTHING = {"reference": None, "outcome": "none", "notes": [], "categories": {}, "mean": {}}


def category(**changes: Any) -> dict[str, Any]:
    row = {
        "image_auroc": 0.9,
        "image_ap": None,
        "pixel_ap": 0.5,
        "intervals": {"image_auroc": [0.85, 0.94], "pixel_ap": None},
        "n_good": 10,
        "n_defective": 5,
        "threshold": 0.4321,
        "promised_false_positive_rate": 0.05,
        "false_positive_rate": 0.1,
        "false_negative_rate": None,
        "leakage": {"n_good": 1, "n_defective": 1, "without": {"image_auroc": 0.8}},
    }
    return row | changes


def metrics(*names: str, **changes: Any) -> dict[str, Any]:
    baseline = {"image_auroc": 0.95, "pixel_ap": 0.1}
    return {
        "categories": {name: category() for name in names},
        "mean": {"image_auroc": 0.9, "pixel_ap": 0.5, "intervals": {}},
        "baseline": {"pca": dict.fromkeys(names, baseline), "autoencoder": {}},
        "protocol": "strict",
        **changes,
    }


def comparison(*names: str, verdict: str = "worse") -> dict[str, Any]:
    row = {"difference": -0.02, "low": -0.03, "high": -0.01, "p_value": 0.004, "verdict": verdict}
    rows = {name: {"n_common": 15, "metrics": {"image_auroc": row}} for name in names}
    return {
        "reference": "champion (decodiff-elpv version 3)",
        "outcome": "compared",
        "notes": ["plate: the test set has changed"],
        "categories": rows,
        "mean": {"metrics": {"image_auroc": row}},
        "confidence": 0.95,
    }


def cells(page: str, start: str) -> list[str]:
    """Cells of the first row that starts with a text."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_everything_a_reviewer_wants_is_on_the_page() -> None:
    spread = {"n": 3, "mean": 0.91, "std": 0.01, "low": 0.9, "high": 0.92}
    page = render_summary(
        metrics("plate", seeds={"plate": {"image_auroc": spread}}),
        comparison("plate"),
        {"model": "abc123", "data": "d4", "dvc_revision": None},
    )
    assert cells(page, "plate")[3] == "0.900 <sub>0.850…0.940</sub> ▼"
    assert cells(page, "plate")[4] == "0.500"  # image AP was not measured, so it has no column
    assert "| plate | I-AUROC | −0.020 | −0.030 … −0.010 | 0.004 | ▼ worse |" in page  # noqa: RUF001
    assert "Not above the PCA baseline: plate." in page
    assert "**0.950** (not beaten)" in page
    assert "autoencoder" not in page
    assert "| plate | 0.4321 | 5.0 % | 10.0 % | - |" in page
    assert "plate 2 (image AUROC 0.900, without them 0.800)" in page
    assert "0.910 ± 0.010" in page
    assert "- plate: the test set has changed" in page
    assert "protocol strict · model abc123 · data d4" in page
    assert "dvc" not in page


def test_a_change_that_is_not_significant_is_not_listed() -> None:
    page = render_summary(
        metrics("plate"), comparison("plate", verdict="no significant difference"), {}
    )
    assert cells(page, "plate")[3].endswith("–")  # noqa: RUF001
    assert "| plate | I-AUROC |" not in page
    assert "| **mean** | I-AUROC | −0.020 |" in page  # noqa: RUF001


@pytest.mark.parametrize("outcome", ["not_compared", "without_significance"])
def test_why_nothing_was_tested_is_on_the_page(outcome: str) -> None:
    missing = NOTHING | {"reference": "v1", "outcome": outcome, "notes": ["v1 has no metrics.json"]}
    page = render_summary(metrics("plate"), missing, {})
    assert "with v1" in page
    assert "Change against" not in page
    assert "- v1 has no metrics.json" in page


def test_names_are_shown_as_they_are_and_break_nothing() -> None:
    name = "a|b `c` <script>alert(1)</script> [x](http://y) @all\nnew *line*"
    page = render_summary(metrics(name), comparison(name), {"model": "`m`"})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert r"a\|b \`c\`" in page
    assert "@all" not in page
    rows = [line for line in page.splitlines() if line.startswith(r"| a\|b")]
    assert len(rows) == 4  # metrics, change, baselines, decisions: a line each
    assert rows[0].replace(r"\|", "").count("|") == 6


def test_a_long_name_is_cut_before_it_is_escaped() -> None:
    assert escaped("<" * 200) == "&lt;" * 79 + "…"


def test_many_categories_fit_into_a_comment_with_the_telling_ones_first() -> None:
    names = [f"category <{i:04d}> with a long, long name" for i in range(3000)]
    result = metrics(*names)
    for name in names:
        result["baseline"]["pca"][name] = {}
    changed = comparison(names[1234])
    page = render_summary(result, changed, {})
    assert len(page) <= 60_000
    assert "1234" in page
    assert "2960 more of the 3000 categories are in the report" in page
