"""The Open Inference Protocol (v2) over HTTP, as KServe, Triton and MLServer speak it.

Of the protocol: health, metadata and inference in JSON; no binary tensors, no gRPC. Specification:
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import Request  # noqa: TC002 - FastAPI resolves annotations
from fastapi.responses import JSONResponse

from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd
    from fastapi import FastAPI

EXAMPLE = (
    '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["base64…"]}, '
    '{"name": "category", "shape": [1], "datatype": "BYTES", "data": ["mono"]}]}'
)
INPUTS = ("image", "category")


def add_protocol(app: FastAPI, model: Any, name: str, number: str) -> None:
    """Answer ``/v2/…`` with a model, as ``/invocations`` does.

    Args:
        app: The application.
        model: With ``predict`` and ``metadata`` of a loaded MLflow model.
        name: Of the model, in paths and answers.
        number: Of its version; empty where it is not known.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.types import DataType

    kinds = {
        column.name: "FP64" if column.type == DataType.double else "BYTES"
        for column in model.metadata.get_output_schema()
    }
    model_version = {"model_version": number} if number else {}

    _add_health(app, name)

    @app.get(f"/v2/models/{name}")
    def metadata() -> dict[str, Any]:
        return {
            "name": name,
            "versions": [number] if number else [],
            "platform": "mlflow_pyfunc",
            "inputs": [_tensor(one, "BYTES", -1) for one in INPUTS],
            "outputs": [_tensor(one, kind, -1) for one, kind in kinds.items()],
        }

    @app.post(f"/v2/models/{name}/infer")
    async def infer(request: Request) -> JSONResponse:
        try:
            body = _parsed(await request.body())
            asked = _asked(body, kinds)
            frame = _frame(body["inputs"])
            params = body.get("parameters") or {}
            table = await asyncio.to_thread(model.predict, frame, params=params)
        except ModelError as error:
            return JSONResponse({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except MlflowException as error:
            return JSONResponse({"error": error.message}, error.get_http_status_code())
        outputs = [
            _tensor(one, kinds[one], len(table)) | {"data": _data(table[one])} for one in asked
        ]
        answer = {"model_name": name, **model_version, "outputs": outputs}
        return JSONResponse(answer | ({"id": body["id"]} if "id" in body else {}))


def _add_health(app: FastAPI, name: str) -> None:
    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "decodiff", "version": version("decodiff-pipeline"), "extensions": []}

    @app.get("/v2/health/live")
    def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")  # the application is made of a loaded model
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get(f"/v2/models/{name}/ready")
    def model_ready() -> dict[str, Any]:
        return {"name": name, "ready": True}


def _tensor(name: str, kind: str, length: int) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": [length]}


def _parsed(data: bytes) -> dict[str, Any]:
    """The body of a request.

    Raises:
        ModelError: It is not what the protocol asks for.
    """
    try:
        body = json.loads(data)
    except ValueError as error:
        raise ModelError(f"the request is no JSON ({error}); send {EXAMPLE}") from error
    kinds = {"inputs": list, "outputs": list, "parameters": dict}
    if not (
        isinstance(body, dict)
        and "inputs" in body
        and all(isinstance(body[key], kind) for key, kind in kinds.items() if body.get(key))
    ):
        raise ModelError(f"the request has not the form of the v2 protocol; send {EXAMPLE}")
    return body


def _asked(body: dict[str, Any], known: dict[str, str]) -> list[str]:
    """Names of the outputs to answer with: all, where none is named."""
    named: list[Any] = [
        one.get("name") if isinstance(one, dict) else one for one in body.get("outputs") or ()
    ]
    for one in named:
        if one not in list(known):
            raise ModelError(f"there is no output {one!r}; outputs are {', '.join(known)}")
    return named or list(known)


def _frame(inputs: Any) -> pd.DataFrame:
    """A row for each image, from one tensor for each column.

    Raises:
        ModelError: A tensor is no list of texts, or they are not of one length.
    """
    import pandas as pd

    columns: dict[str, list[str]] = {}
    for tensor in inputs or ():
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if name not in INPUTS:
            raise ModelError(f"there is no input {name!r}; send {EXAMPLE}")
        if "data" not in tensor:
            raise ModelError(f"the input {name} has no data; binary tensors are not read")
        data = tensor["data"]
        if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
            raise ModelError(f"the input {name} is no list of texts; send {EXAMPLE}")
        shape = tensor.get("shape")
        if tensor.get("datatype") != "BYTES" or not _is_shape(shape, len(data)):
            raise ModelError(
                f"the input {name} is of datatype {tensor.get('datatype')} and shape {shape}; "
                f"{len(data)} texts are of datatype BYTES and shape [{len(data)}]"
            )
        columns[name] = data
    if "image" not in columns or len({len(data) for data in columns.values()}) > 1:
        raise ModelError(f"send an image, and a category for each or none; such as {EXAMPLE}")
    return pd.DataFrame(columns)


def _is_shape(shape: Any, length: int) -> bool:
    is_list = isinstance(shape, list) and all(isinstance(side, int) for side in shape)
    return is_list and bool(shape) and math.prod(shape) == length


def _data(values: pd.Series) -> list[Any]:
    """A column in JSON: missing values stay null, detections become JSON in text."""
    return [json.dumps(one) if isinstance(one, list) else one for one in values.tolist()]
