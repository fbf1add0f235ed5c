"""What the monitoring reads: tables of recent images, and the log of a served model."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import DataError
from decodiff_pipeline.monitoring.source import RecentSource
from decodiff_pipeline.serving.answer import Answer
from decodiff_pipeline.serving.request_log import RequestLog

if TYPE_CHECKING:
    from pathlib import Path


def served(
    folder: Path, model: str, scores: list[float], *, images: str = "none", data: bytes = b""
) -> None:
    """Logs requests as a served model does."""
    log = RequestLog(folder, {"scores_sha256": model}, images=images)
    for score in scores:
        decision = "defective" if score > 0.5 else "good"
        answer = Answer((9, 9), "mono", None, decision, score, 0.5, "fitted")
        log.write("r", [data], ["mono"], [answer], 1)


def test_a_log_is_a_source_as_folder_and_as_file(tmp_path: Path) -> None:
    served(tmp_path, "ours", [0.1, 0.9])
    (file,) = tmp_path.glob("*.jsonl")
    for source in (tmp_path, file):
        rows = RecentSource(source).rows(None, scores_of="ours")
        assert rows.to_dict("list") == {
            "category": ["mono", "mono"], "path": ["", ""], "score": [0.1, 0.9],
        }  # fmt: skip


def test_scores_of_another_model_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served(tmp_path, "theirs", [0.3, 0.4])
    with pytest.raises(DataError, match=r"all 2 lines are of another model.*monitoring\.model"):
        RecentSource(tmp_path).rows(None, scores_of="ours")
    served(tmp_path, "ours", [0.1])
    with caplog.at_level(logging.WARNING):
        rows = RecentSource(tmp_path).rows(None, scores_of="ours")
    assert rows["score"].tolist() == [0.1]
    assert "2 of 3 lines are skipped" in caplog.text


def test_images_count_where_all_were_kept_and_are_still_there(tmp_path: Path, make) -> None:
    png = make.image(tmp_path / "a.png", seed=1, size=(60, 50)).read_bytes()
    log = tmp_path / "log"
    served(log, "theirs", [0.2, 0.9], images="all", data=png)
    rows = RecentSource(log).rows(None, scores_of="ours")  # measured anew, by our model
    assert rows["score"].isna().all()
    assert RecentSource(log).read(rows["path"][0]).size == (60, 50)
    (log / rows["path"][0]).unlink()
    assert RecentSource(log).rows(None, scores_of="theirs")["path"].tolist() == ["", ""]

    # Of the defective ones alone, light and focus would seem to have changed.
    served(tmp_path / "some", "ours", [0.2, 0.9], images="defective", data=png)
    rows = RecentSource(tmp_path / "some").rows(None, scores_of="ours")
    assert rows[["path", "score"]].values.tolist() == [["", 0.2], ["", 0.9]]


def test_the_last_days_of_a_log(tmp_path: Path) -> None:
    days = ["2026-03-01", "2026-03-07", "2026-03-08"]
    for day in days:
        line = {"time": f"{day}T12:00:00.000+00:00", "category": "mono", "score": 0.5}
        (tmp_path / f"{day}.jsonl").write_text(json.dumps(line) + "\n")
    assert len(RecentSource(tmp_path).rows(None)) == 3
    assert len(RecentSource(tmp_path).rows(None, last_days=2)) == 2
    (tmp_path / "x.csv").write_text("category,score\nmono,0.5\n")
    with pytest.raises(DataError, match="last_days is set"):
        RecentSource(tmp_path / "x.csv").rows(None, last_days=2)


def test_damaged_lines_are_counted_and_others_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"category": "mono", "score": 0.5}\n\n{"categ\n[1]\n')
    with caplog.at_level(logging.WARNING):
        assert len(RecentSource(log).rows(None, scores_of="ours")) == 1
    assert "2 lines are not JSON" in caplog.text
    for content, said in [
        ("", "no line that is a JSON object"),
        ("text\n", "no line that is a JSON object"),
        ('{"category": "mono"}\n', "line 1"),
        ('{"score": 0.5}\n', "line 1"),
    ]:
        log.write_text(content)
        with pytest.raises(DataError, match=said):
            RecentSource(log).rows(None)


def test_a_table_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "recent.csv"
    for content, said in [
        ("path\na.png\n", "it needs category"),
        ("category,score\nmono,\n", "line 2"),
        ("category,score\nmono,0.5\nmono,high\n", "line 3: score .high. is not a number"),
        ("category,path\n,a.png\n", "line 2"),
    ]:
        table.write_text(content)
        with pytest.raises(DataError, match=said):
            RecentSource(table).rows(None)
