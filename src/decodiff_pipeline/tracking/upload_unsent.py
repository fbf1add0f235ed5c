"""Sends the journals of ended runs to MLflow.

python -m decodiff_pipeline.tracking.upload_unsent
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import DecodiffError, TrackingError
from decodiff_pipeline.tracking.journal import FOLDER, Journal, journals
from decodiff_pipeline.tracking.mlflow_values import first_line, patience, prepare_environment
from decodiff_pipeline.tracking.redaction import HIDDEN, redact
from decodiff_pipeline.tracking.uploader import MlflowUploader

if TYPE_CHECKING:
    from collections.abc import Sequence

GONE = (  # text of a tag
    "the process ended without a word (kill -9, no memory left, a power cut); "
    "the end time is that of its last sign of life"
)


def upload(path: Path, tracking_uri: str | None = None) -> str:
    """Send the journal of a run that has ended, and remove it when MLflow has all records.

    Args:
        tracking_uri: Store or server; by default the one of the run.

    Returns:
        A sentence for the user.

    Raises:
        BlockingIOError: The run is still active, or another process sends the journal.
        TrackingError: The journal is damaged, or MLflow cannot be reached.
        ConfigurationError: The run or its experiment was deleted in MLflow.
    """
    last_write = int(path.stat().st_mtime * 1000)
    journal = Journal.open(path)
    try:
        name = journal.header.run_name
        uri = tracking_uri or journal.header.tracking_uri
        if HIDDEN in uri:
            msg = f"{name}: the password for {uri} is not stored; set MLFLOW_TRACKING_URI"
            raise TrackingError(msg)
        if not journal.ended:
            journal.append("tags", "tag error", {"error": GONE})
            data = {"status": "KILLED", "time": last_write}
            journal.append("end", "status KILLED", data)
        n_records = len(journal.pending)
        _deliver(journal, uri)
        status = next(r.data["status"] for r in journal.records if r.kind == "end")
        return f"{name}: {n_records} records sent, run {journal.run_id} is {status}"
    finally:
        journal.close()


def _deliver(journal: Journal, uri: str) -> None:
    uploader = MlflowUploader(journal, uri, fresh=False)
    try:
        uploader.find_run()
        with patience():
            uploader.send()
    except DecodiffError:
        raise
    except Exception as error:
        raise TrackingError(
            f"{journal.header.run_name}: MLflow at {redact(uri)} does not take "
            f"{len(journal.pending)} records ({first_line(error)}); they remain in "
            f"{journal.path.parent}"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the exit status is 1 if a record of an ended run was not sent."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.tracking.upload_unsent",
        description="Send to MLflow the records that it did not receive during the runs.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(FOLDER), help="default: %(default)s"
    )
    parser.add_argument(
        "--tracking-uri",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="default: MLFLOW_TRACKING_URI, or the store of each run",
    )
    options = parser.parse_args(arguments)
    prepare_environment()
    failed = False
    paths = journals(options.folder)
    for path in paths:
        try:
            sys.stdout.write(f"{upload(path, options.tracking_uri)}\n")
        except BlockingIOError:
            sys.stdout.write(f"{path.parent.name}: the run is still active\n")
        except (DecodiffError, OSError) as error:
            failed = True
            sys.stderr.write(f"error: {error}\n")
    if not paths:
        sys.stdout.write(f"no unsent records in {options.folder}\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
