"""What needs no browser: bounds, errors without paths, the host, a job's output."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.app import inspection, server
from decodiff_pipeline.app.jobs import Jobs
from decodiff_pipeline.deco.regions import EVERYTHING
from decodiff_pipeline.errors import ConfigurationError, ImageError
from decodiff_pipeline.serving.scorer import Scorer
from decodiff_pipeline.tracking.redaction import without_paths

if TYPE_CHECKING:
    from pathlib import Path

FITTED = {"categories": {"mono": {"threshold": 0.05, "pixel_threshold": 0.01}}}


@pytest.fixture(scope="module")
def scorer(tiny_model: Path) -> Scorer:
    from decodiff_pipeline.serving.scorer import load_pipeline

    return Scorer(load_pipeline(tiny_model), FITTED, max_pixels=10_000)


def test_a_bad_upload_costs_no_other_its_answer(
    scorer: Scorer, raw: Path, make: SimpleNamespace
) -> None:
    good, large = raw / "mono" / "a.png", make.image(raw / "l.png", 1, (200, 100))
    damaged = raw / "<b>.png"
    damaged.write_bytes(good.read_bytes()[:-40])
    version: Any = SimpleNamespace(scorer=scorer, number="7")
    empty = raw / "empty.png"
    empty.touch()
    files = [(path.name, path.read_bytes()) for path in (good, large, damaged, empty)]
    found = inspection.inspect(version, files, "mono")
    assert found[0].answer is not None
    assert "pixels" in found[1].error
    assert found[2].error
    assert found[3].error
    assert {one.version for one in found} == {"7"}
    assert "unknown category 'nail'" in inspection.inspect(version, files[:1], "nail")[0].error
    with pytest.raises(ImageError, match="24 at once"):
        inspection.inspect(version, files[:1] * 25, "mono")


def test_boxes_and_map_are_drawn_in_the_pixels_of_the_image(scorer: Scorer, raw: Path) -> None:
    one = inspection.inspect_one(scorer, "a.png", (raw / "mono" / "a.png").read_bytes(), "mono")
    assert one.answer is not None
    image = inspection.decode_image(one, scorer.pipeline)
    page = inspection.render_layers(image, one.answer)
    assert 'viewBox="0 0 60 50"' in page
    assert page.count("<rect") == min(len(one.answer.detections or ()), inspection.MOST_BOXES)
    assert "heat" in page
    assert "counted" not in page
    assert "counted" in inspection.render_layers(image, one.answer, EVERYTHING)
    assert inspection.reconstruction(image, "mono", scorer.pipeline).size == (60, 50)


def test_messages_hold_no_folder_of_the_server() -> None:
    said = without_paths("line 2: /var/log/decodiff/images/a.png (/srv/x y): see ~/data/b.png, 1/2")
    assert said == "line 2: a.png (x y): see b.png, 1/2"
    assert without_paths("MLflow at sqlite:////srv/x/m.db, file:///a/b c") == "MLflow at m.db, b c"
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
    said = "1 %\\r50 %\\rRunning node: train_network: f([a])\\nCompleted 5 out of 23 tasks"
    code = f"import os, time; print('{said}'); print(os.environ['LOGNAME'], os.getcwd()); "
    jobs.start("waiting", [sys.executable, "-c", f"{code}time.sleep(30)"], "ana")
    with pytest.raises(ConfigurationError, match="waiting is still running"):
        jobs.retrain("ben")
    deadline = time.monotonic() + 20
    while "ana" not in jobs.tail() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert jobs.tail().startswith("Running node: train_network")  # not the bar before it
    assert jobs.tail().endswith(f"ana {tmp_path.name}")
    assert jobs.state.endswith("0 min, train_network, 5 of 23 steps done")
    jobs.stop()
    deadline = time.monotonic() + 20
    while jobs.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "has failed" in jobs.state
