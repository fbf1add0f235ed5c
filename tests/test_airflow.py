"""The retraining as a DAG of Airflow, as `make airflow` writes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from decodiff_pipeline.pipeline_registry import STAGES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
AIRFLOW = os.environ.get("AIRFLOW") or shutil.which("airflow")
PARSE = """
import json, runpy, sys
from airflow.sdk import DAG
(dag,) = (v for v in runpy.run_path(sys.argv[1]).values() if isinstance(v, DAG))
tasks = {t.task_id: [t.bash_command, t.cwd, t.retries, sorted(t.upstream_task_ids)]
         for t in dag.tasks}
print(json.dumps([dag.dag_id, dag.schedule, dag.max_active_runs, tasks]))
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAG of an environment, with a schedule."""
    if find_spec("kedro_airflow") is None:
        pytest.skip("kedro-airflow is not installed: pip install -e .[airflow]")
    folder = tmp_path_factory.mktemp("dags")
    subprocess.run(
        [sys.executable, "-m", "kedro", "airflow", "create", "--pipelines", "retrain",
         "--env", "mvtec", "--jinja-file", "deploy/airflow_dag.j2", "--target-dir", folder,
         "--params", "project=/srv/it's here,schedule=17 2 * * 1,retries=3"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    (file,) = folder.iterdir()
    return file


def test_every_stage_becomes_a_task_after_those_it_reads_from(generated: Path) -> None:
    found: dict[str, dict[str, list[str]]] = {}
    text = generated.read_text(encoding="utf-8")
    exec(text[text.index("STAGES") : text.index("with DAG")], found)  # noqa: S102
    after = found["STAGES"]
    assert {*after} == {*STAGES, "promotion"}
    assert after["data_validation"] == []
    assert after["training"] == ["data_validation", "latent_caching"]
    assert after["promotion"] == ["data_validation", "registration"]


def test_airflow_parses_it(generated: Path) -> None:
    if AIRFLOW is None:
        pytest.skip("no airflow on the path; AIRFLOW=/path/to/bin/airflow names one")
    python = Path(AIRFLOW).with_name("python")
    done = subprocess.run(
        [python, "-c", PARSE, generated], check=True, capture_output=True, text=True
    )
    name, schedule, active, tasks = json.loads(done.stdout.splitlines()[-1])
    assert (name, schedule, active) == ("decodiff-retrain-mvtec", "17 2 * * 1", 1)
    assert tasks["evaluation"] == [
        "exec .venv/bin/kedro run --env mvtec --pipelines evaluation",
        "/srv/it's here", 3, ["data_validation", "training"],
    ]  # fmt: skip
