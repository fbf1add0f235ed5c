"""Serves a registered version over HTTP, like `mlflow models serve`.

python -m decodiff_pipeline.serving.server --model models:/decodiff-elpv

Differences from MLflow's command:
- The process itself becomes the server (exec), so that SIGTERM to a container's main process stops
  it. `mlflow models serve` starts the server as a child and does not forward the signal.
- An error response is one sentence without a stack trace, and an invalid request is a 4xx.
- The server has `/metrics` (Prometheus) and `/v2` (Open Inference Protocol).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import sys
import tempfile
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.tracking.mlflow_values import first_line, prepare_environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import FastAPI, Request, Response

logger = logging.getLogger(__name__)

MLFLOW_APP = "mlflow.pyfunc.scoring_server.app:app"
NEEDED = "send a body of the type application/json with dataframe_records: image and category"
APP = "decodiff_pipeline.serving.server:app"
REGISTERED = re.compile(r"models:/([^/@]+)")  # a name without a version


def server_command(
    model: str, host: str, port: int, workers: int, timeout_s: int
) -> tuple[list[str], dict[str, str]]:
    """Download a model; returns the command and the environment variables of its server.

    Args:
        model: A folder with an MLflow model, or a URI (``models:/name@alias``).
        workers: Number of processes, each with its own copy of the model.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    local = mlflow.artifacts.download_artifacts(model)
    # MLflow annotates the host as int.
    command, environment = scoring_server.get_cmd(
        local,
        port,
        host,  # type: ignore[arg-type]
        timeout_s,
        workers,
    )
    # More threads are slower under concurrent requests; docs/performance.md has the measurements.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if workers > 1:
        from decodiff_pipeline.serving.metrics import FOLDER_VARIABLE

        environment[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="decodiff_metrics_")
    return shlex.split(command.replace(MLFLOW_APP, APP)), environment


def chosen_version(model: str) -> str:
    """Resolve ``models:/name`` to its champion, or to its newest version without a champion.

    Args:
        model: Value of ``--model``; anything but ``models:/name`` is returned unchanged.
    """
    registered = REGISTERED.fullmatch(model)
    if registered is None:
        return model
    from mlflow import MlflowClient

    name, client = registered[1], MlflowClient()
    number = client.get_registered_model(name).aliases.get("champion")
    reason = "the champion"
    if number is None:
        versions = client.search_model_versions(f"name = '{name}'")
        number = max(int(version.version) for version in versions)
        reason = "the newest one, since no version is champion"
    sys.stderr.write(f"serving {name} version {number}, {reason}\n")
    return f"models:/{name}/{number}"


def is_up(port: int) -> bool:
    """Whether a server on this machine answers ``/ping``."""
    connection = HTTPConnection("127.0.0.1", port, timeout=4)  # ignores proxy settings
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def make_app(model: Any) -> FastAPI:
    """MLflow's scoring application with ``/metrics``, ``/v2`` and plain error messages."""
    from fastapi.responses import Response
    from mlflow.pyfunc import scoring_server

    from decodiff_pipeline.serving.metrics import CountedModel, add_metrics
    from decodiff_pipeline.serving.open_inference import add_protocol

    # An attribute of the logged copy of `served_model.py`, so its name cannot change.
    version = model.unwrap_python_model()._told
    name, _, number = (version["model_version"] or "decodiff/").rpartition("/")
    counted = CountedModel(model)
    app: FastAPI = scoring_server.init(counted)  # type: ignore[arg-type]
    add_protocol(app, counted, name, number)

    def error_response(status: int, message: str) -> Response:
        body = json.dumps({"error_code": HTTPStatus(status).name, "message": message})
        return Response(body, status, media_type="application/json")

    @app.middleware("http")
    async def plain_errors(
        request: Request, call_next: Callable[[Request], Awaitable[Any]]
    ) -> Response:
        if request.method == "POST" and not request.headers.get("content-type"):
            return error_response(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the request has no content type; {NEEDED}"
            )
        try:
            response = await call_next(request)
        except Exception as error:  # from MLflow's parser; the model catches its own errors
            logger.warning("a request cannot be read", exc_info=True)
            return error_response(
                HTTPStatus.BAD_REQUEST,
                f"the request cannot be read ({type(error).__name__}); {NEEDED}",
            )
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        body = b"".join([part async for part in response.body_iterator])
        return Response(_without_trace(body), response.status_code, media_type=response.media_type)

    add_metrics(app, version)
    return app


def _without_trace(body: bytes) -> bytes:
    try:
        error = json.loads(body)
    except ValueError:
        return body
    if isinstance(error, dict) and error.pop("stack_trace", None):
        logger.warning("%s", error.get("message"))
    return json.dumps(error).encode()


def __getattr__(name: str) -> Any:
    """Create ``app`` when uvicorn imports it, for the model in MLflow's environment variable."""
    if name != "app":
        raise AttributeError(name)
    from mlflow.pyfunc import scoring_server

    path = os.environ[scoring_server._SERVER_MODEL_PATH]
    return make_app(scoring_server.load_model_with_mlflow_config(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server; exits with a message and status 1 if the model cannot be fetched."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.serving.server",
        description="Serve a registered version over HTTP.",
    )
    environment = os.environ.get
    parser.add_argument(
        "--model",
        default=environment("MODEL_URI"),
        help="models:/name (its champion, else its newest version), models:/name/version, or a "
        "folder with an MLflow model; default: $MODEL_URI",
    )
    parser.add_argument("--host", default=environment("HOST", "127.0.0.1"), help="default: $HOST")
    parser.add_argument("--port", type=int, default=environment("PORT", "5001"), help="$PORT")
    parser.add_argument("--workers", type=int, default=environment("WORKERS", "1"), help="$WORKERS")
    parser.add_argument("--timeout", type=int, default=60, help="seconds per request; 60")
    parser.add_argument("--check", action="store_true", help="only check that the server is up")
    options = parser.parse_args(arguments)
    if options.check:
        sys.exit(None if is_up(options.port) else f"error: nothing answers on port {options.port}")
    if not options.model:
        sys.exit("error: no model: give --model models:/name, or set MODEL_URI")
    if options.workers < 1:
        sys.exit(f"error: --workers is {options.workers}; it must be at least 1")
    prepare_environment()
    try:
        command, variables = server_command(
            chosen_version(options.model),
            options.host,
            options.port,
            options.workers,
            options.timeout,
        )
    except Exception as error:  # MLflow and its stores have no common base class of errors
        sys.exit(f"error: the model {options.model} cannot be fetched ({first_line(error)})")
    # The script of this Python environment, which need not be activated.
    program = Path(sys.executable).with_name(command[0])
    os.execve(program, [str(program), *command[1:]], variables)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
