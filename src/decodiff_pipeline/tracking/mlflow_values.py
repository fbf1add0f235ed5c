"""MLflow's limits on keys, values and batches, its environment variables, and conversions."""

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
    from contextlib import AbstractContextManager

# Limits of mlflow.utils.validation; MLflow rejects the whole batch if one value exceeds them.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 5000
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
STRICT, MODEL = "strict", "model"  # default protocol and resolution of the evaluation
INTERVALS = "intervals"
# Entries of a category that are read as tables; as charts, 15 categories would make thousands.
TABLES = frozenset({"confusion", "cropped_defects", "defect_types", "leakage", "uncertain"})
# Settings of an evaluation, and the last row of a training history, which is logged as a curve.
NOT_CHARTED = frozenset({"aupro_limit", "confidence", "last", "n_categories", "resamples"})

# No telemetry. An unreachable server costs seconds; with MLflow's defaults, four minutes.
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL contains the password
}
DATABASE = "mlflow.db"
UNKNOWN = "RESOURCE_DOES_NOT_EXIST"  # MLflow's error code for a missing run, model or version
UPLOAD_SECONDS = 120  # request timeout while a model is stored
OF_A_SERVER = "DECODIFF_"  # prefix of the variables that configure a model server


def default_uri(project: Path) -> str:
    """URI of the project's SQLite store, used if ``MLFLOW_TRACKING_URI`` is not set.

    Under ``dvc exp run --temp`` the project is a temporary copy and DVC_ROOT the original.
    """
    return f"sqlite:///{Path(os.environ.get('DVC_ROOT') or project) / DATABASE}"


def prepare_environment() -> None:
    """Set the environment variables that MLflow reads at import, and reduce its logging.

    A variable that the user has set keeps its value.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow.pyfunc", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # warns at each retry


def set_environment(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set or (``None``) remove environment variables; returns their previous values."""
    before = {key: os.environ.get(key) for key in values}
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    return before


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    before = set_environment(values)
    try:
        yield
    finally:
        set_environment(before)


def patience() -> AbstractContextManager[None]:
    """Raise MLflow's request timeout to `UPLOAD_SECONDS` while gigabytes are uploaded."""
    variable = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    seconds = max(UPLOAD_SECONDS, int(os.environ.get(variable) or 0))
    return _environment({variable: str(seconds)})


def as_registered() -> AbstractContextManager[None]:
    """Hide the variables that configure a server, so that a model uses its registered values."""
    return _environment(dict.fromkeys(key for key in os.environ if key.startswith(OF_A_SERVER)))


def artifact_bytes(run_id: str, name: str) -> bytes:
    """Download a file of a run's artifacts."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder)
        return Path(path).read_bytes()


def flatten(tree: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Flatten nested mappings.

    Args:
        separator: ``"."`` for parameters, ``"/"`` for metrics (MLflow groups charts by it).

    Returns:
        ``{"a/b": leaf}``; in keys, ``_`` replaces the characters that MLflow rejects.
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

    The level ``categories`` of an evaluation is dropped: a chart is called ``mono/image_auroc``.
    Another protocol or resolution than the default has charts of its own
    (``released/mono/image_auroc``, ``native/mono/image_auroc``). The limits of a confidence
    interval are ``mono/image_auroc_low`` and ``…_high``. Entries of `TABLES` and `NOT_CHARTED`,
    nulls, texts and lists are omitted.
    """
    variant = [tree.get("protocol", STRICT), tree.get("resolution", MODEL)]
    prefix = "".join(f"{name}/" for name in variant if name not in {STRICT, MODEL})
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
    """Metrics of a category without `TABLES`, and with the limits of its intervals."""
    charted = {
        key: value for key, value in row.items() if key not in {*TABLES, *NOT_CHARTED, INTERVALS}
    }
    for name, interval in (row.get(INTERVALS) or {}).items():
        if interval is not None:
            charted |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return charted


def text_of(value: Any) -> str:
    """A parameter as text or JSON, truncated to `MAX_PARAM` characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - 1] + "…"


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Split items into batches of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def first_line(error: BaseException) -> str:
    """First line of an error without passwords; its type if it has no message."""
    return redact((str(error).strip().splitlines() or [type(error).__name__])[0])
