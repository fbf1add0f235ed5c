"""A Kedro project of its own, small enough to run in a second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class History(NamedTuple):
    """Runs that are over: the project and all that they printed."""

    project: Path
    output: str


FILES = {
    "pyproject.toml": """
        [tool.kedro]
        package_name = "toy"
        project_name = "toy"
        kedro_init_version = "1.7.0"
        source_dir = "src"
    """,
    ".telemetry": "consent: false",
    "conf/local/.gitkeep": "",
    "conf/base/globals.yml": "dataset: toyset",
    "conf/base/catalog.yml": """
        metrics:
          type: json.JSONDataset
          filepath: data/metrics.json
          metadata: {mlflow: [metrics, artifact]}
        table:
          type: pandas.CSVDataset
          filepath: data/table.csv
          metadata: {mlflow: table}
        figures:
          type: partitions.PartitionedDataset
          path: data/figures
          filename_suffix: .png
          dataset: matplotlib.MatplotlibDataset
          metadata: {mlflow: artifact}
        manifest:
          type: pandas.ParquetDataset
          filepath: data/manifest.parquet
          metadata: {mlflow: digest}
        log:
          type: json.JSONDataset
          filepath: data/log.json
          metadata: {mlflow: history}
        report:
          type: text.TextDataset
          filepath: data/report.html
          metadata: {mlflow: artifact}
    """,
    "conf/base/parameters_training.yml": """
        training:
          learning_rate: 0.2
          inner: {size: 4}
    """,
    "src/toy/__init__.py": "",
    "src/toy/settings.py": """
        from kedro.framework.hooks import hook_impl
        from decodiff_pipeline.errors import ConfigurationError
        from decodiff_pipeline.hooks import ErrorHooks, SummaryHooks, TrackingHooks


        class Checks:
            @hook_impl
            def before_pipeline_run(self, pipeline, catalog):
                if "params:training" not in pipeline.inputs():
                    return
                if catalog.load("params:training").fail == "check":
                    raise ConfigurationError("there are no weights at raw/x; name a folder")


        tracking = TrackingHooks()
        HOOKS = (ErrorHooks(), Checks(), tracking, SummaryHooks(tracking))
    """,
    "src/toy/pipeline_registry.py": """
        import os
        import sys
        import time
        from pathlib import Path

        from kedro.pipeline import Node, Pipeline
        from pydantic import BaseModel, ConfigDict
        from decodiff_pipeline.errors import ConfigurationError, DataError


        class Inner(BaseModel):
            model_config = ConfigDict(extra="forbid")
            size: int = 3


        class Config(BaseModel):
            model_config = ConfigDict(extra="forbid")
            learning_rate: float = 0.1
            fail: str = ""
            storage: str = ""
            api_key: str = ""
            sizes: tuple[int, ...] = ()
            inner: Inner = Inner()

            def model_post_init(self, context):
                if self.learning_rate > 10:
                    raise ConfigurationError("training.learning_rate is above 10; lower it")


        def train(training: Config) -> tuple[dict, list]:
            if training.fail == "data":
                raise DataError("raw/x.png is empty; copy it again")
            if training.fail == "bug":
                raise ValueError("a bug")
            if training.fail == "disk":
                raise OSError(28, "No space left on device", "data/x")
            if training.fail == "exit":
                sys.exit(3)
            if training.fail == "secret":
                raise ValueError("https://me:hunter22@host/?sig=abc and " + os.environ["DB_TOKEN"])
            if training.fail == "sleep":
                Path("sleeping").write_text(os.environ["MLFLOW_RUN_ID"])
                try:
                    time.sleep(60)
                finally:
                    Path("unwound").touch()
            found = {"categories": {"mono": {"image_auroc": 0.9, "pixel_ap": None}}}
            found |= {"mean": {"image_auroc": 0.9}, "confidence": 0.95}
            return found, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


        def report(metrics: dict) -> str:
            return "<p>"


        def validate():
            from pandas import DataFrame

            row = {"category": "a", "split": "b", "label": "c", "path": "d", "sha256": "e"}
            return DataFrame([row])


        def draw(manifest):
            from matplotlib.figure import Figure

            return manifest[["category"]], {"mono": Figure()}


        def trivial() -> int:
            heavy = {"mlflow", "torch", "diffusers", "sklearn", "matplotlib", "great_expectations"}
            return sorted(heavy & set(sys.modules))


        def register_pipelines():
            training = Pipeline([Node(train, "params:training", ["metrics", "log"])])
            evaluation = Pipeline([Node(report, "metrics", "report")])
            return {
                "training": training,
                "untracked": training,
                "validation": Pipeline([Node(validate, None, "manifest")]),
                "retrain": Pipeline([Node(draw, "manifest", ["table", "figures"])]),
                "evaluation": evaluation,
                "trivial": Pipeline([Node(trivial, None, "heavy")]),
                "__default__": training + evaluation,
            }
    """,
}

# A script, so that several runs share one start-up.
RUNS = """
import json, signal, sys
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from pathlib import Path

# What a shell starts in the background ignores Ctrl-C, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
bootstrap_project(Path.cwd())
for pipeline, parameters in json.loads(sys.argv[1]):
    with KedroSession.create(runtime_params=parameters) as session:
        try:
            result = session.run(pipeline_names=[pipeline])
            print(pipeline, {name: data.load() for name, data in result.items()})
        except Exception as error:
            print(pipeline, "raised", error)
"""


def make_project(root: Path, database: Path | None = None) -> Path:
    """Writes the project, with MLflow's tables, which take seconds to make, where given."""
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    if database is not None:
        shutil.copy(database, root / "mlflow.db")
    return root


def environment(**variables: str) -> dict[str, str]:
    """The environment without what would change a run; wide, so that no line is broken."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    plain = {"DO_NOT_TRACK": "true", "COLUMNS": "400", "PYTHONUNBUFFERED": "1"}
    return own | plain | variables


def start(
    project: Path, *runs: tuple[str, dict[str, Any]], **variables: str
) -> subprocess.Popen[str]:
    """Starts a process that runs pipelines, given as (name, parameters), one after the other."""
    return subprocess.Popen(
        [sys.executable, "-c", RUNS, json.dumps(runs)],
        cwd=project,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's root."""
    return make_project(tmp_path / "project")


@pytest.fixture
def tables(project: Path, empty_database: Path) -> None:
    """MLflow's tables in the project."""
    shutil.copy(empty_database, project / "mlflow.db")


@pytest.fixture
def sessions(project: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start` in the project."""
    return partial(start, project)


SECRET = "s3cr3t-of-the-database"  # noqa: S105 - of nobody


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> History:
    """Runs that succeed and fail, after one another in one process."""
    project = make_project(tmp_path_factory.mktemp("history") / "project", empty_database)
    secret = {
        "fail": "secret",
        "storage": "s3://me:hunter22@bucket/x?token=abcdef",
        "api_key": "key-0123456789",
    }
    process = start(
        project,
        ("trivial", {}),
        ("__default__", {}),
        ("training", {"training": {"fail": "data"}}),
        ("training", {"training": secret}),
        ("validation", {}),
        ("retrain", {}),
        DB_TOKEN=SECRET,
        DVC_EXP_NAME="brisk-newt",
        DVC_STAGE="training",
        DVC_EXP_BASELINE_REV="0123abc",
    )
    output, _ = process.communicate(timeout=240)
    return History(project, output)


@pytest.fixture
def kedro(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``kedro`` in the project, as a user does."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kedro", *arguments],
            cwd=project,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
