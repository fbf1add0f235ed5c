"""Commands that the documentation names, with the options that it names."""

from __future__ import annotations

import runpy
import sys

import pytest

COMMANDS = {
    "retrain": ["--project", "--commit", "--continue-from"],
    "dvc_stages": ["--check", "--project"],
    "data.acquire": ["--raw", "elpv", "folder"],
    "data.add_reviewed": ["--labels", "--images", "--to", "--layout", "--dry-run"],
    "deco.convert": ["--to-released", "--categories", "--dataset", "--heads"],
    "registry.serve": ["--host", "--port", "--workers", "--timeout", "--check"],
    "registry.upload_unsent": [],
    "registry.onnx_export": ["--model", "--to", "--images", "--tolerance"],
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_is_where_it_was(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"decodiff_pipeline.{module}", run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert not [option for option in COMMANDS[module] if option not in shown]


def test_the_summary_takes_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["summary"])
    with pytest.raises(SystemExit):
        runpy.run_module("decodiff_pipeline.evaluation.summary", run_name="__main__")
    assert "METRICS.JSON" in capsys.readouterr().err
