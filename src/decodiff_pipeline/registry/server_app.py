"""MLflow's scoring server with errors that a client can read; what `registry.serve` starts.

MLflow answers with the stack trace of whatever it stumbles over, and fails on requests that it does
not expect. Here an error is a sentence, and what is wrong with a request is a 4xx.
"""

from __future__ import annotations

import json
import logging
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI, Request, Response

logger = logging.getLogger(__name__)

NEEDED = "send a body of the type application/json with dataframe_records: image and category"


def make_app(model: Any) -> FastAPI:
    """MLflow's application for a loaded model.

    Args:
        model: As ``mlflow.pyfunc.load_model`` returns it.
    """
    from fastapi.responses import Response
    from mlflow.pyfunc import scoring_server

    app: FastAPI = scoring_server.init(model)

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
