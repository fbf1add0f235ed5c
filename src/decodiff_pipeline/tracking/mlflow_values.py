"""What MLflow takes: its limits on keys, values and batches, and its environment variables."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.file_names import metric_key
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# MLflow's own limits (mlflow.utils.validation); it refuses the whole batch beyond them.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 5000
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
STRICT, MODEL = "strict", "model"  # the evaluation's own protocol and resolution
INTERVALS = "intervals"
# Of a category, what is read in tables and not as a chart over runs: a data set with 15 categories
# would have thousands of charts.
TABLES = frozenset({"confusion", "cropped_defects", "defect_types", "leakage", "uncertain"})
# Settings of an evaluation, and the end of a training's history, which is a curve already.
NOT_CHARTED = frozenset({"aupro_limit", "confidence", "last", "n_categories", "resamples"})

# Telemetry off; and a server that is gone costs seconds, not the four minutes of the defaults.
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password, and a call to find it
}
DATABASE = "mlflow.db"
UNKNOWN = "RESOURCE_DOES_NOT_EXIST"  # MLflow's code for a run, model or version that is not there
UPLOAD_SECONDS = 120
# Variables by which a server is told its thresholds, its log and more; no check is meant by them.
OF_A_SERVER = "DECODIFF_"


def default_uri(project: Path) -> str:
    """The store of a project's runs and models where ``MLFLOW_TRACKING_URI`` names none.

    Under ``dvc exp run --temp`` the project is a throw-away copy, and DVC_ROOT the real one.
    """
    return f"sqlite:///{Path(os.environ.get('DVC_ROOT') or project) / DATABASE}"


def prepare_environment() -> None:
    """Set what MLflow reads on import; what the user has set stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for noisy in ("alembic", "mlflow.pyfunc", "mlflow.system_metrics"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each single retry


@contextmanager
def patience() -> Iterator[None]:
    """Give the server time to store a model: gigabytes take longer to confirm than a metric."""
    variable = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(variable)
    os.environ[variable] = str(max(UPLOAD_SECONDS, int(before or 0)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextmanager
def as_registered() -> Iterator[None]:
    """Without the variables that tell a server to answer otherwise than the version says."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(OF_A_SERVER)}
    for key in kept:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(kept)


def artifact_bytes(run_id: str, name: str) -> bytes:
    """A file among a run's artifacts."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder)
        return Path(path).read_bytes()


def flatten(tree: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Leaves of nested mappings under joined keys that MLflow accepts.

    Args:
        tree: Nested mappings; lists are leaves.
        separator: ``"."`` for parameters, ``"/"`` for metrics (MLflow groups charts by it).

    Returns:
        ``{"a/b": leaf}`` with characters MLflow refuses replaced by ``_``.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = metric_key(str(key))
        if isinstance(value, dict):
            children = flatten(value, separator)
            leaves.update({f"{name}{separator}{k}"[:MAX_KEY]: v for k, v in children.items()})
        else:
            leaves[name[:MAX_KEY]] = value
    return leaves


def numbers_in(tree: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers of a nested mapping, by flattened name.

    Evaluation's ``{"categories": {name: {…}}}`` loses its first level, so that a chart is called
    ``mono/image_auroc``; by another protocol than the strict one it is
    ``released/mono/image_auroc``, and at another resolution than the model's
    ``native/mono/image_auroc``, since they must not share a chart. The ends of its interval are
    ``mono/image_auroc_low`` and ``…_high``; what is in `TABLES` and `NOT_CHARTED` is left out, and
    so are nulls, texts and lists.
    """
    how = [tree.get("protocol", STRICT), tree.get("resolution", MODEL)]
    prefix = "".join(f"{name}/" for name in how if name not in {STRICT, MODEL})
    tree = {key: value for key, value in tree.items() if key not in NOT_CHARTED}
    categories = tree.get("categories")
    if isinstance(categories, dict):
        others = {key: tree[key] for key in tree if key not in ("categories", "mean", "seeds")}
        rows = {**categories, "mean": tree.get("mean", {})}
        tree = others | {name: _charted(row) for name, row in rows.items()}
    return {
        f"{prefix}{name}"[:MAX_KEY]: float(value)
        for name, value in flatten(tree, "/").items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _charted(row: Mapping[str, Any]) -> dict[str, Any]:
    """A category without `TABLES`, and with the ends of intervals beside what they belong to."""
    charted = {
        key: value for key, value in row.items() if key not in {*TABLES, *NOT_CHARTED, INTERVALS}
    }
    for name, ends in (row.get(INTERVALS) or {}).items():
        if ends is not None:
            charted |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return charted


def text_of(value: Any) -> str:
    """A parameter as MLflow stores it: texts as they are, the rest as JSON, cut to its length."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - 1] + "…"


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Items in parts of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def first_line(error: BaseException) -> str:
    """An error as one line, without passwords; its type where it says nothing."""
    return redact((str(error).strip().splitlines() or [type(error).__name__])[0])
