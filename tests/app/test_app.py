"""What needs no browser: bounds, errors without paths, the host, a job's output."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.app import inspection, server
from decodiff_pipeline.app.jobs import Jobs
from decodiff_pipeline.app.messages import without_paths
from decodiff_pipeline.deco.regions import EVERYTHING
from decodiff_pipeline.errors import ConfigurationError, ImageError
from decodiff_pipeline.serving.scorer import Scorer

if TYPE_CHECKING:
    from pathlib import Path

FITTED = {"categories": {"mono": {"threshold": 0.05, "pixel_threshold": 0.01}}}


@pytest.fixture(scope="module")
def scorer(tiny_model: Path) -> Scorer:
    from decodiff_pipeline.serving.scorer import load_pipeline

    return Scorer(load_pipeline(tiny_model), FITTED, max_pixels=10_000)


def test_a_bad_upload_costs_no_other_its_answer(
    scorer: Scorer, raw: Path, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, large = raw / "mono" / "a.png", make.image(raw / "l.png", 1, (200, 100))
    damaged = raw / "<b>.png"
    damaged.write_bytes(good.read_bytes()[:-40])
    found = inspection.inspect(scorer, [good, large, damaged], "mono")
    assert found[0].answer is not None
    assert "pixels" in found[1].error
    assert found[2].error
    assert str(raw) not in "".join(map(inspection.line, found))
    monkeypatch.setattr(inspection, "MAX_MEGABYTES", 0.0001)
    assert "MB" in inspection.inspect(scorer, [good], "mono")[0].error
    with pytest.raises(ImageError, match="24 at once"):
        inspection.inspect(scorer, [good] * 25, "mono")


def test_boxes_and_map_are_drawn_in_the_pixels_of_the_image(scorer: Scorer, raw: Path) -> None:
    (one,) = inspection.inspect(scorer, [raw / "mono" / "a.png"], "mono")
    assert one.answer is not None
    image = inspection.opened(one, scorer.pipeline)
    page = inspection.layers(image, one.answer)
    assert 'viewBox="0 0 60 50"' in page
    assert page.count("<rect") == min(len(one.answer.detections or ()), inspection.MOST_BOXES)
    assert "heat" in page
    assert "counted" not in page
    assert "counted" in inspection.layers(image, one.answer, EVERYTHING)
    assert inspection.reconstruction(image, "mono", scorer.pipeline).size == (60, 50)
    assert one.at(1.0).answer.decision == "good"  # type: ignore[union-attr]
    assert one.at(0.0).answer.decision == "defective"  # type: ignore[union-attr]


def test_messages_hold_no_folder_of_the_server() -> None:
    said = without_paths("line 2: /var/log/decodiff/images/a.png (/srv/x y): see ~/data/b.png, 1/2")
    assert said == "line 2: a.png (x y): see b.png, 1/2"
    assert without_paths("models:/decodiff/3 at https://example.org/a/b") == (
        "models:/decodiff/3 at https://example.org/a/b"
    )


def test_another_host_needs_a_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    for host in ("0.0.0.0", "192.168.1.7", "line3.example.org", "::"):  # noqa: S104
        with pytest.raises(SystemExit, match=server.TOKEN_VARIABLE):
            server.main(["--host", host])
    assert all(map(server.is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))


def test_one_job_at_a_time_and_its_output(tmp_path: Path) -> None:
    project: Any = SimpleNamespace(root=tmp_path, environment=None)
    jobs = Jobs(project)
    assert jobs.tail() == ""
    code = "import os, time; print(os.environ['LOGNAME'], os.getcwd()); time.sleep(30)"
    jobs.start("waiting", [sys.executable, "-c", code], "ana")
    with pytest.raises(ConfigurationError, match="waiting is still running"):
        jobs.retrain("ben")
    deadline = time.monotonic() + 20
    while "ana" not in jobs.tail() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert jobs.tail() == f"ana {tmp_path.name}"
    jobs.stop()
    deadline = time.monotonic() + 20
    while jobs.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "has failed" in jobs.state
