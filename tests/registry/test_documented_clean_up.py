"""The clean-up of docs/retraining.md deletes old versions, and none that an alias is on."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from click.testing import CliRunner

PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"


def test_old_versions_go_for_good_and_those_with_an_alias_stay(store: str) -> None:
    import mlflow.cli
    from mlflow import MlflowClient

    client, name = MlflowClient(store), "decodiff-elpv"
    client.create_registered_model(name)
    experiment = client.get_experiment_by_name("default").experiment_id
    runs, folders = [], []
    for _ in range(13):
        runs.append(client.create_run(experiment).info.run_id)
        model = client.create_logged_model(experiment, source_run_id=runs[-1])
        folders.append(Path(unquote(urlsplit(model.artifact_location).path)))
        folders[-1].mkdir(parents=True)
        (folders[-1] / "MLmodel").touch()
        client.create_model_version(name, model.model_uri, runs[-1], model_id=model.model_id)
    client.set_registered_model_alias(name, "champion", "2")
    client.set_registered_model_alias(name, "challenger", "13")

    section = PAGE.read_text("utf-8").partition("## What a year leaves")[2]
    script = re.search(r"```py\n(.*?)```", section, flags=re.DOTALL)
    assert script is not None
    exec(script[1], {})  # noqa: S102 - from this repository
    done = CliRunner().invoke(mlflow.cli.gc, ["--backend-store-uri", store])
    assert done.exit_code == 0, done.output

    left = {int(one.version) for one in client.search_model_versions(f"name='{name}'")}
    assert left == {2, *range(4, 14)}
    assert client.get_registered_model(name).aliases.keys() == {"champion", "challenger"}
    assert {run.info.run_id for run in client.search_runs([experiment])} == {
        runs[number - 1] for number in left
    }
    there = {number for number, folder in enumerate(folders, 1) if (folder / "MLmodel").exists()}
    assert there == left
