"""The evaluation records of a version, stored as artifacts of the run that registered it."""

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

# File names of the catalog entries metrics and evaluation_record.
METRICS_FILE = "metrics.json"
RECORD_FILE = "evaluation_record.parquet"
FOLDER = "evaluations"  # records of later evaluations, with other data or code
DIGITS = 16  # of the identity's SHA-256, in the name of a record's folder


def find_record(
    client: MlflowClient, run_id: str, identity: Mapping[str, Any]
) -> pd.DataFrame | None:
    """Find the record of an evaluation with this identity among a run's artifacts.

    Args:
        identity: See `evaluation.record.identity`.
    """
    for path in (_record_path(identity), RECORD_FILE):
        try:
            if path not in _files_beside(client, run_id, path):
                continue
            with tempfile.TemporaryDirectory() as folder:
                record = pd.read_parquet(client.download_artifacts(run_id, path, folder))
        except Exception as error:  # the version is evaluated again
            logger.info("%s of run %s cannot be read: %s", path, run_id, first_line(error))
            continue
        if record.attrs.get(IDENTITY) == identity:
            return record
    return None


def keep_record(client: MlflowClient, run_id: str, record: pd.DataFrame) -> None:
    """Store a record with a version unless the run has it.

    Args:
        record: From `evaluation.assessment`; a record without an identity is not stored.
    """
    identity = record.attrs.get(IDENTITY)
    if identity is None:
        return
    path = _record_path(identity)
    if path not in _files_beside(client, run_id, path):
        log_record(client, run_id, record, str(Path(path).parent))


def log_record(
    client: MlflowClient, run_id: str, record: pd.DataFrame, folder: str | None = None
) -> None:
    """Log a record to a run, in a folder of its artifacts."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, RECORD_FILE)
        record.to_parquet(path, index=False)
        client.log_artifact(run_id, str(path), folder)


def _record_path(identity: Mapping[str, Any]) -> str:
    return f"{FOLDER}/{sha256_of(dict(identity))[:DIGITS]}/{RECORD_FILE}"


def _files_beside(client: MlflowClient, run_id: str, path: str) -> set[str]:
    folder = str(Path(path).parent)
    return {file.path for file in client.list_artifacts(run_id, None if folder == "." else folder)}
