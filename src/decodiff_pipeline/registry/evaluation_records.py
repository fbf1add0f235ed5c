"""The evaluation records of a version, kept among the artifacts of the run that made it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.deco.digests import sha256_of
from decodiff_pipeline.evaluation.record import IDENTITY
from decodiff_pipeline.tracking.mlflow_values import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

# As the files of the catalog entries metrics and evaluation_record are called.
METRICS_FILE = "metrics.json"
RECORD_FILE = "evaluation_record.parquet"
FOLDER = "evaluations"  # records of later evaluations: of other data, or by other code
DIGITS = 16


def find_record(
    client: MlflowClient, run_id: str, identity: Mapping[str, Any]
) -> pd.DataFrame | None:
    """The record of an evaluation with this identity, if the run has one.

    Args:
        identity: See `evaluation.record.identity`.
    """
    for path in (_path(identity), RECORD_FILE):
        try:
            if path not in _files(client, run_id, path):
                continue
            with tempfile.TemporaryDirectory() as folder:
                record = pd.read_parquet(client.download_artifacts(run_id, path, folder))
        except Exception as error:  # it is evaluated again then
            logger.info("%s of run %s cannot be read: %s", path, run_id, first_line(error))
            continue
        if record.attrs.get(IDENTITY) == identity:
            return record
    return None


def keep_record(client: MlflowClient, run_id: str, record: pd.DataFrame) -> None:
    """Add a record to those of a version, unless the run has it.

    Args:
        record: As `evaluation.assessment` makes it; one without an identity is not kept.
    """
    identity = record.attrs.get(IDENTITY)
    if identity is None:
        return
    path = _path(identity)
    if path not in _files(client, run_id, path):
        log_record(client, run_id, record, str(Path(path).parent))


def log_record(
    client: MlflowClient, run_id: str, record: pd.DataFrame, folder: str | None = None
) -> None:
    """Log a record to a run, into a folder of its artifacts."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, RECORD_FILE)
        record.to_parquet(path, index=False)
        client.log_artifact(run_id, str(path), folder)


def _path(identity: Mapping[str, Any]) -> str:
    return f"{FOLDER}/{sha256_of(dict(identity))[:DIGITS]}/{RECORD_FILE}"


def _files(client: MlflowClient, run_id: str, path: str) -> set[str]:
    folder = str(Path(path).parent)
    return {file.path for file in client.list_artifacts(run_id, None if folder == "." else folder)}
