"""Opens MLflow's page with the runs of a data set.

python -m decodiff_pipeline.tracking.ui elpv

`mlflow ui` starts four server processes and a dozen job runners for traces of language models, and
opens the page of those traces. This command starts one server process and opens the page of runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import webbrowser
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.tracking.mlflow_values import default_uri, first_line, prepare_environment
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 120  # time limit for the server to start


def runs_page(uri: str, dataset: str) -> str:
    """URL fragment of the data set's runs, or of all experiments if it has none.

    Raises:
        Exception: MLflow cannot read the store.
    """
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment_by_name(dataset)
    return f"#/experiments/{experiment.experiment_id}/runs" if experiment else "#/experiments"


def open_when_up(port: int, address: str) -> None:
    """Print an address and open it in the browser as soon as the server of the port answers."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
        except (OSError, HTTPException):
            time.sleep(0.5)
        else:
            sys.stdout.write(f"{address}   (Ctrl-C ends it)\n")
            sys.stdout.flush()
            webbrowser.open_new_tab(address)
            return
        finally:
            connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve MLflow's UI until the process is stopped; with a remote server, open its page."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.tracking.ui")
    parser.description = "Open MLflow's page with the runs of a data set."
    parser.add_argument("dataset", help="name of the data set, which is the experiment's name")
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    prepare_environment()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path.cwd())
    try:
        page = runs_page(uri, options.dataset)
    except Exception as error:  # of MLflow, requests or SQLAlchemy
        sys.exit(f"error: MLflow at {redact(uri)} cannot be read ({first_line(error)})")
    if uri.startswith(("http:", "https:")):
        sys.stdout.write(f"{redact(uri).rstrip('/')}/{page}\n")
        webbrowser.open_new_tab(f"{redact(uri).rstrip('/')}/{page}")
        return
    address = f"http://127.0.0.1:{options.port}/{page}"
    threading.Thread(target=open_when_up, args=(options.port, address), daemon=True).start()
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.cli import cli

    # MLflow's command runs in this process, so that a signal that ends it also ends the server.
    cli(["ui", "--workers", "1", "--port", str(options.port), "--backend-store-uri", uri])


if __name__ == "__main__":
    main()
