"""Commands in messages name the environment that the message was seen under."""

from __future__ import annotations

import pytest

from decodiff_pipeline import commands
from decodiff_pipeline.commands import kedro_run, use_environment

# They write files, tags and commands of another environment than that of the run.
OTHERS = {"data/add_reviewed.py", "dvc_stages.py", "hooks/tracking.py", "recommend/environment.py"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_active", None)
    monkeypatch.delenv("KEDRO_ENV", raising=False)


def test_the_environment_of_the_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kedro_run() == "kedro run"
    assert kedro_run("rollback") == "kedro run --pipelines rollback"
    use_environment("tiles")
    assert kedro_run("rollback", "--params a=1") == (
        "kedro run --env tiles --pipelines rollback --params a=1"
    )
    use_environment("my parts")
    assert kedro_run() == "kedro run --env 'my parts'"
    use_environment(None)
    monkeypatch.setenv("KEDRO_ENV", "screws")
    assert kedro_run("train") == "kedro run --env screws --pipelines train"
