"""What another threshold would do, and the thresholds that people set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from decodiff_pipeline.app.thresholds import count_errors, round_up, save_override, slider_range
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.run import with_overrides
from decodiff_pipeline.serving.scorer import Scorer

if TYPE_CHECKING:
    from pathlib import Path

FITTED = {"categories": {"mono": {"threshold": 0.3}, "poly": {"threshold": 0.3}}}


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        ("mono", "calibration", "good", 0.1), ("mono", "calibration", "good", 0.3),
        ("mono", "test", "good", 0.2), ("mono", "test", "good", 0.6),
        ("mono", "test", "defective", 0.5), ("mono", "test", "defective", 0.8),
        ("mono", "test", "uncertain", 0.9), ("poly", "test", "defective", 1.0),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["category", "split", "label", "score"])


def test_counts_are_those_of_one_category_and_of_sure_labels(scores: pd.DataFrame) -> None:
    def errors(category: str, threshold: float) -> list[tuple[int, int]]:
        return list(count_errors(scores, category, threshold).values())

    assert errors("mono", 0.3) == [(1, 2), (1, 2), (0, 2)]
    assert errors("mono", 0.7) == [(0, 2), (0, 2), (1, 2)]
    assert errors("absent", 0.5)[2] == (0, 0)


def test_the_slider_reaches_every_score_and_no_further_than_one(scores: pd.DataFrame) -> None:
    assert slider_range(scores, "poly", None)[0] == 1.0
    assert slider_range(scores[:3], "mono", 0.2)[0] == pytest.approx(0.375)
    assert slider_range(scores[:0], "mono", None)[0] == 1.0
    assert round_up(0.46143949) == 0.46144


@pytest.fixture
def record(tiny_model: Path) -> dict[str, str]:
    digest = folder_sha256(tiny_model)
    return {
        "by": "ana", "reason": "line 3, new lamp", "model_version": "d/1", "model_sha256": digest
    }  # fmt: skip


def test_an_override_serves_and_infers_with_its_model_alone(
    tmp_path: Path, tiny_model: Path, record: dict[str, str], png: bytes
) -> None:
    file, log, fitted = tmp_path / "o.json", tmp_path / "log.jsonl", tmp_path / "thresholds.json"
    fitted.write_text(json.dumps(FITTED))
    save_override(file, log, "mono", 0.9, record)
    scorer = Scorer.from_folder(tiny_model, fitted, overrides=file)
    first, second = scorer.score([png, png], ["mono", "poly"], map_bits=0)
    assert (first.threshold, first.threshold_from) == (0.9, "override")
    assert (second.threshold, second.threshold_from) == (0.3, "fitted")
    config = with_overrides(InferenceConfig(thresholds={"poly": 0.2}), file, tiny_model)
    assert config.thresholds == {"mono": 0.9, "poly": 0.2}

    save_override(file, log, "mono", 0.9, record | {"model_sha256": "of another"})
    (answer,) = Scorer.from_folder(tiny_model, fitted, overrides=file).score([png], ["mono"])
    assert answer.threshold_from == "fitted"
    save_override(file, log, "mono", None, record)
    assert json.loads(file.read_text()) == {}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["threshold"] for line in lines] == [0.9, 0.9, None]
    assert {line["action"] for line in lines} == {"threshold"}


@pytest.mark.parametrize(
    ("threshold", "reason", "said"),
    [(0.5, " ", "reason"), (1.5, "because", "within 0…1"), (float("nan"), "because", "within")],
)
def test_a_bad_override_changes_nothing(
    tmp_path: Path, record: dict[str, str], threshold: float, reason: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        save_override(
            tmp_path / "o.json", tmp_path / "l", "mono", threshold, record | {"reason": reason}
        )
    assert list(tmp_path.iterdir()) == []
