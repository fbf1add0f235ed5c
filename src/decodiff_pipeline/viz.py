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
import time
import warnings
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline import commands
from decodiff_pipeline.errors import DecodiffError

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _open_when_up(port: int) -> None:
    while not _answers(port):
        time.sleep(0.5)
    sys.stdout.write(f"http://{HOST}:{port}   (Ctrl-C ends it)\n")
    sys.stdout.flush()
    webbrowser.open_new_tab(f"http://{HOST}:{port}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.viz")
    parser.description = "Show pipelines and data in a browser."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
    parser.add_argument("--port", type=int, default=4141)
    options = parser.parse_args(arguments)
    if _answers(options.port):
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
    threading.Thread(target=_open_when_up, args=(options.port,), daemon=True).start()
    try:
        run_server(host=HOST, port=options.port, env=options.env, project_path=str(Path.cwd()))
    except (DecodiffError, RuntimeError) as error:  # the latter where this folder is no project
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
