"""Starts Kedro-Viz on the pipelines.

python -m decodiff_pipeline.viz --env bolts

`kedro viz run` answers from a second process, which outlives the first one. Here it is one.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline import commands
from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.tracking.ui import open_when_up

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.viz")
    parser.description = "Show pipelines and data in a browser."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
    parser.add_argument("--port", type=int, default=4141)
    options = parser.parse_args(arguments)
    with socket.socket() as probe:
        taken = probe.connect_ex((HOST, options.port)) == 0
    if taken:
        sys.exit(f"error: port {options.port} is taken; name another one with --port")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    logging.getLogger("kedro_viz.api.rest.responses.run_events").setLevel(logging.ERROR)
    try:
        from kedro_viz.server import run_server
    except ImportError:
        sys.exit(
            "error: Kedro-Viz is not installed; install it with "
            "`python -m pip install 'decodiff-pipeline[viz]'`"
        )
    address = f"http://{HOST}:{options.port}"
    threading.Thread(target=open_when_up, args=(options.port, address), daemon=True).start()
    try:
        run_server(host=HOST, port=options.port, env=options.env, project_path=str(Path.cwd()))
    except (DecodiffError, RuntimeError) as error:  # the latter where this folder is no project
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
