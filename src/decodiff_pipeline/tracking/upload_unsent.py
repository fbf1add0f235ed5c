"""Sends what runs could not: ``python -m decodiff_pipeline.tracking.upload_unsent``."""

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

GONE = (
    "the process ended without a word (kill -9, no memory left, a power cut); "
    "the end time is that of its last sign of life"
)


def upload(path: Path, tracking_uri: str | None = None) -> str:
    """Send the journal of a run that is over, and remove it when MLflow has it all.

    Args:
        tracking_uri: Where to; ``None`` for where the run would have gone.

    Returns:
        What was done, in a sentence.

    Raises:
        BlockingIOError: The run goes on, or somebody else is sending it.
        TrackingError: The journal is damaged, or MLflow cannot be reached.
        ConfigurationError: The run or its experiment was deleted in MLflow.
    """
    last_sign_of_life = int(path.stat().st_mtime * 1000)
    journal = Journal.open(path)
    try:
        name = journal.header.run_name
        uri = tracking_uri or journal.header.tracking_uri
        if HIDDEN in uri:
            msg = f"{name}: the password for {uri} is not kept; set MLFLOW_TRACKING_URI to send it"
            raise TrackingError(msg)
        if not journal.ended:
            journal.append("tags", "tag error", {"error": GONE})
            data = {"status": "KILLED", "time": last_sign_of_life}
            journal.append("end", "status KILLED", data)
        left = len(journal.pending)
        _deliver(journal, uri)
        status = next(r.data["status"] for r in journal.records if r.kind == "end")
        return f"{name}: {left} records sent, run {journal.run_id} is {status}"
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
            f"{len(journal.pending)} records ({first_line(error)}); they stay in "
            f"{journal.path.parent}"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the status is 1 if something of a run that is over was not sent."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.tracking.upload_unsent",
        description="Sends to MLflow what it did not get while runs lasted.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(FOLDER), help="default: %(default)s"
    )
    parser.add_argument(
        "--tracking-uri",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="default: MLFLOW_TRACKING_URI, or where each run would have gone",
    )
    options = parser.parse_args(arguments)
    prepare_environment()
    failed = False
    found = journals(options.folder)
    for path in found:
        try:
            sys.stdout.write(f"{upload(path, options.tracking_uri)}\n")
        except BlockingIOError:
            sys.stdout.write(f"{path.parent.name}: the run goes on, nothing to do yet\n")
        except (DecodiffError, OSError) as error:
            failed = True
            sys.stderr.write(f"error: {error}\n")
    if not found:
        sys.stdout.write(f"nothing waits in {options.folder}\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
