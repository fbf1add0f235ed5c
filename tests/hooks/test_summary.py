"""What the end of a run tells, and how to open it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.commands import use_environment
from decodiff_pipeline.hooks import SummaryHooks, TrackingHooks

if TYPE_CHECKING:
    from pathlib import Path

METRICS = {
    "dataset": "elpv",
    "categories": {
        "mono": {"image_auroc": 0.91, "n_good": 3, "n_defective": 4},
        "poly": {"image_auroc": None, "n_good": 3, "n_defective": 0},
    },
    "mean": {"image_auroc": 0.91},
    "baseline": {"pca": {"mono": {"image_auroc": 0.9}, "poly": {"image_auroc": None}}},
    "protocol": "strict",
}
REGISTRATION = {
    "name": "decodiff",
    "version": "3",
    "new": True,
    "tracking_uri": "sqlite:////srv/mlflow.db",
    "serve": "python -m decodiff_pipeline.serving.server --model models:/decodiff/3",
}


Show = Callable[..., str]


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints the summary of a run that wrote data sets, given by keyword."""
    names = ("metrics", "report", "registration", "rollback", "monitoring", "monitoring_report")
    entries = {
        name: {"type": "json.JSONDataset", "filepath": str(tmp_path / f"{name}.json")}
        for name in names
    }

    def show(tracker: Any = None, **written: Any) -> str:
        for name, data in written.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(data))
        tracking = TrackingHooks()
        tracking.tracker = tracker
        hooks = SummaryHooks(tracking)
        hooks.after_context_created(SimpleNamespace(project_path=tmp_path))
        nodes = [Node(lambda: 1, None, name, name=name) for name in written]
        hooks.after_pipeline_run(Pipeline(nodes), DataCatalog.from_config(entries))
        return capsys.readouterr().out

    return show


def tracker(uri: str) -> SimpleNamespace:
    return SimpleNamespace(tracking_uri=uri, run_id="abc", experiment="elpv", experiment_id="7")


def test_a_full_run_shows_the_table_and_three_commands(shown: Show, tmp_path: Path) -> None:
    text = shown(
        tracker("sqlite:////srv/mlflow.db"), metrics=METRICS, report={}, registration=REGISTRATION
    )
    assert "mono" in text
    assert "0.91" in text
    assert f"python -m webbrowser -t {(tmp_path / 'report.json').as_uri()}" in text
    store = "MLFLOW_TRACKING_URI=sqlite:////srv/mlflow.db"
    assert f"{store} python -m decodiff_pipeline.tracking.ui elpv" in text
    assert "decodiff version 3" in text
    assert f"{store} {REGISTRATION['serve']}" in text


def test_the_page_of_a_run_on_a_server_without_its_password(shown: Show) -> None:
    text = shown(tracker("https://me:secret@mlflow.example"), report={})
    assert "https://***@mlflow.example/#/experiments/7/runs/abc" in text
    assert "secret" not in text


def test_other_outputs(shown: Show) -> None:
    assert shown() == ""
    assert "no new version" in shown(registration=REGISTRATION | {"new": False})
    line = {"name": "decodiff", "outcome": "rolled back", "from_version": "3", "to_version": "2"}
    text = shown(rollback=line | {"reason": "false alarms"})
    assert "version 2 is champion again in place of version 3: false alarms" in text


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (["no drift", "drift"], "drift"),
        (["no drift", "too few to say"], "no drift"),
        (["too few to say"], "too few to say"),
        ([], "too few to say"),
    ],
)
def test_the_monitoring_ends_with_its_verdict(
    shown: Show, tmp_path: Path, statuses: list[str], verdict: str
) -> None:
    categories = {str(number): {"status": status} for number, status in enumerate(statuses)}
    answer = {"categories": categories, "why": ["mono: 50 images differ.", "2 cannot be read."]}
    text = shown(monitoring=answer, monitoring_report={})
    assert f"monitoring: {verdict}\nmono: 50 images differ.\n2 cannot be read.\n" in text
    assert f"python -m webbrowser -t {(tmp_path / 'monitoring_report.json').as_uri()}" in text


def test_a_lock_of_an_earlier_run_is_named_with_the_command_that_records_it(
    shown: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("KEDRO_ENV", raising=False)
    assert "DVC" not in shown(metrics=METRICS)  # nothing was recorded yet
    (tmp_path / "dvc.yaml").write_text("stages: {evaluation: {metrics: [metrics.json]}}")
    lock = "stages: {{evaluation: {{outs: [{{path: metrics.json, md5: {}}}]}}}}"
    (tmp_path / "dvc.lock").write_text(lock.format("of-another-run"))
    use_environment(None, {"training": {"steps": 150}})
    try:
        text = " ".join(shown(metrics=METRICS).split())
    finally:
        use_environment(None)
    assert "dvc.lock is of an earlier run than metrics.json; write training.steps=150 into" in text
    assert "conf/base first, then python -m decodiff_pipeline.record" in text
    content = (tmp_path / "metrics.json").read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    (tmp_path / "dvc.lock").write_text(lock.format(md5))
    assert "DVC" not in shown(metrics=METRICS)
