"""The clean-up of docs/retraining.md deletes old versions, and none that an alias is on."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"


def test_old_versions_go_and_those_with_an_alias_stay(store: str) -> None:
    from mlflow import MlflowClient

    client, name = MlflowClient(store), "decodiff-elpv"
    client.create_registered_model(name)
    experiment = client.get_experiment_by_name("default").experiment_id
    runs = [client.create_run(experiment).info.run_id for _ in range(13)]
    for run in runs:
        client.create_model_version(name, "file:///nowhere", run)
    client.set_registered_model_alias(name, "champion", "2")
    client.set_registered_model_alias(name, "challenger", "13")

    section = PAGE.read_text("utf-8").partition("## What a year leaves")[2]
    script = re.search(r"```py\n(.*?)```", section, flags=re.DOTALL)
    assert script is not None
    exec(script[1], {})  # noqa: S102 - from this repository

    left = {int(one.version) for one in client.search_model_versions(f"name='{name}'")}
    assert left == {2, *range(4, 14)}
    assert client.get_registered_model(name).aliases.keys() == {"champion", "challenger"}
    stages = [client.get_run(run).info.lifecycle_stage for run in runs]
    assert stages == ["deleted", "active", "deleted", *["active"] * 10]
