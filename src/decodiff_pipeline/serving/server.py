"""Serves a registered version as one process: `mlflow models serve` without the shell in between.

python -m decodiff_pipeline.serving.server --model models:/decodiff-elpv

MLflow's own command stays the parent of the server and does not hand SIGTERM on to it; here the
process becomes the server, so that a container's main process is what the signal stops.

MLflow answers with the stack trace of whatever it stumbles over, and fails on requests that it does
not expect. Here an error is a sentence, and what is wrong with a request is a 4xx.
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
    """Fetch a model; returns the command and the environment of a server for it.

    Args:
        model: A folder with an MLflow model, or a URI (``models:/name@alias``).
        host: Address to listen on.
        port: To listen on.
        workers: Processes, each with the whole model in memory.
        timeout_s: How long a request may take.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    local = mlflow.artifacts.download_artifacts(model)
    # MLflow's annotation says that the host is a number.
    command, environment = scoring_server.get_cmd(
        local,
        port,
        host,  # type: ignore[arg-type]
        timeout_s,
        workers,
    )
    # More threads wait for each other by spinning; docs/performance.md has the figures.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if workers > 1:
        from decodiff_pipeline.serving.metrics import FOLDER_VARIABLE

        environment[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="decodiff_metrics_")
    return shlex.split(command.replace(MLFLOW_APP, APP)), environment


def chosen_version(model: str) -> str:
    """The URI of the version to serve where ``model`` is a name alone, else ``model`` itself.

    Args:
        model: As ``--model`` takes it. Of ``models:/name`` the champion is served, or the newest
            version where there is no champion.
    """
    named = REGISTERED.fullmatch(model)
    if named is None:
        return model
    from mlflow import MlflowClient

    name, client = named[1], MlflowClient()
    number = client.get_registered_model(name).aliases.get("champion")
    what = "the champion"
    if number is None:
        found = client.search_model_versions(f"name = '{name}'")
        number = max(int(version.version) for version in found)
        what = "the newest one, since no version is champion"
    sys.stderr.write(f"serving {name} version {number}, {what}\n")
    return f"models:/{name}/{number}"


def is_up(port: int) -> bool:
    """Whether a server on this machine answers ``/ping``."""
    connection = HTTPConnection("127.0.0.1", port, timeout=4)  # whatever proxies there are
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def make_app(model: Any) -> FastAPI:
    """MLflow's application for a loaded model, with ``/metrics`` and ``/v2``.

    Args:
        model: As ``mlflow.pyfunc.load_model`` returns it.
    """
    from fastapi.responses import Response
    from mlflow.pyfunc import scoring_server

    from decodiff_pipeline.serving.metrics import CountedModel, add_metrics
    from decodiff_pipeline.serving.open_inference import add_protocol

    # Asked of the code that was logged with the version, and hence under the name that it has.
    version = model.unwrap_python_model()._told
    name, _, number = (version["model_version"] or "decodiff/").rpartition("/")
    counted = CountedModel(model)
    app: FastAPI = scoring_server.init(counted)  # type: ignore[arg-type]
    add_protocol(app, counted, name, number)

    def told(status: int, message: str) -> Response:
        body = json.dumps({"error_code": HTTPStatus(status).name, "message": message})
        return Response(body, status, media_type="application/json")

    @app.middleware("http")
    async def plain_errors(
        request: Request, call_next: Callable[[Request], Awaitable[Any]]
    ) -> Response:
        if request.method == "POST" and not request.headers.get("content-type"):
            return told(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the request has no type; {NEEDED}")
        try:
            answer = await call_next(request)
        except Exception as error:  # MLflow parses the body; the model catches its own
            logger.warning("a request cannot be read", exc_info=True)
            return told(
                HTTPStatus.BAD_REQUEST,
                f"the request cannot be read ({type(error).__name__}); {NEEDED}",
            )
        if answer.status_code < HTTPStatus.BAD_REQUEST:
            return answer
        body = b"".join([part async for part in answer.body_iterator])
        return Response(_without_trace(body), answer.status_code, media_type=answer.media_type)

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
    """``app``, which uvicorn asks for by name: of the model that MLflow's variable names."""
    if name != "app":
        raise AttributeError(name)
    from mlflow.pyfunc import scoring_server

    path = os.environ[scoring_server._SERVER_MODEL_PATH]
    return make_app(scoring_server.load_model_with_mlflow_config(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server; ends with a sentence and status 1 where the model cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.serving.server",
        description="Answers images with a registered version.",
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
    parser.add_argument("--timeout", type=int, default=60, help="seconds of a request")
    parser.add_argument("--check", action="store_true", help="say whether the server is up")
    options = parser.parse_args(arguments)
    if options.check:
        sys.exit(None if is_up(options.port) else f"error: nothing answers on port {options.port}")
    if not options.model:
        sys.exit("error: name a model: --model models:/name, or MODEL_URI")
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
    except Exception as error:  # MLflow and its stores raise whatever they like
        sys.exit(f"error: the model {options.model} cannot be fetched ({first_line(error)})")
    # The environment's own scripts first, whether it is activated or not.
    program = Path(sys.executable).with_name(command[0])
    os.execve(program, [str(program), *command[1:]], variables)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
