"""Two versions on the same test images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from decodiff_pipeline.app.comparison import differences, render_comparison
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.serving.scorer import Scorer, load_pipeline

if TYPE_CHECKING:
    from pathlib import Path


def version(number: str, scorer: Scorer, scores: list[float], sha256: str = "abc") -> Any:
    rows = [
        {
            "category": "mono", "split": "test", "label": "good", "path": path, "sha256": sha,
            "score": score,
        }
        for path, sha, score in zip(("mono/a.png", "<b>.png", "c.png"), sha256, scores, strict=True)
    ]  # fmt: skip
    return SimpleNamespace(number=number, scorer=scorer, scores=pd.DataFrame(rows))


def test_other_decisions_come_first_then_the_largest_distances(tiny_model: Path, raw: Path) -> None:
    pipeline = load_pipeline(tiny_model)
    one, other = (
        Scorer(pipeline, {"categories": {"mono": {"threshold": limit}}}) for limit in (0.5, 0.1)
    )
    first = version("2", one, [0.45, 0.9, 0.1])
    second = version("1", other, [0.11, 0.18, 0.01])
    found = differences(first, second)
    assert list(found["path"]) == ["mono/a.png", "c.png", "<b>.png"]
    assert list(found["decision_one"]) == ["good", "good", "defective"]
    page = render_comparison(first, second, raw)
    assert "1 of 3 test images" in page
    assert page.count('class="layers"') == 2  # the other images are not there
    assert "<b>.png" not in page
    with pytest.raises(DataError, match="no scored test image in common"):
        render_comparison(first, version("1", other, [0.1, 0.2, 0.3], "xyz"), raw)
