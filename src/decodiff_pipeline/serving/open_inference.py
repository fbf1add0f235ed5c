"""The Open Inference Protocol (v2) over HTTP, as in KServe, Triton and MLServer.

Supported: health, metadata and inference in JSON; not supported: binary tensors and gRPC.
Specification: https://github.com/kserve/open-inference-protocol
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
    """Add the routes ``/v2/…``, which return the same results as ``/invocations``.

    Args:
        model: Has ``predict`` and ``metadata`` of a loaded MLflow model.
        number: Number of its version; empty if unknown.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.types import DataType

    datatypes = {
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
            "inputs": [_tensor(column, "BYTES", -1) for column in INPUTS],
            "outputs": [_tensor(column, datatype, -1) for column, datatype in datatypes.items()],
        }

    @app.post(f"/v2/models/{name}/infer")
    async def infer(request: Request) -> JSONResponse:
        try:
            body = _parse_body(await request.body())
            columns = _requested_outputs(body, datatypes)
            frame = _frame(body["inputs"])
            params = body.get("parameters") or {}
            table = await asyncio.to_thread(model.predict, frame, params=params)
        except ModelError as error:
            return JSONResponse({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except MlflowException as error:
            return JSONResponse({"error": error.message}, error.get_http_status_code())
        outputs = [
            _tensor(column, datatypes[column], len(table)) | {"data": _data(table[column])}
            for column in columns
        ]
        response = {"model_name": name, **model_version, "outputs": outputs}
        return JSONResponse(response | ({"id": body["id"]} if "id" in body else {}))


def _add_health(app: FastAPI, name: str) -> None:
    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "decodiff", "version": version("decodiff-pipeline"), "extensions": []}

    @app.get("/v2/health/live")
    def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")  # the application starts after the model is loaded
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get(f"/v2/models/{name}/ready")
    def model_ready() -> dict[str, Any]:
        return {"name": name, "ready": True}


def _tensor(name: str, datatype: str, length: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [length]}


def _parse_body(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise ModelError(f"the request is not JSON ({error}); send {EXAMPLE}") from error
    types = {"inputs": list, "outputs": list, "parameters": dict}
    if not (
        isinstance(body, dict)
        and "inputs" in body
        and all(isinstance(body[key], kind) for key, kind in types.items() if body.get(key))
    ):
        raise ModelError(f"the request does not follow the v2 protocol; send {EXAMPLE}")
    return body


def _requested_outputs(body: dict[str, Any], known: dict[str, str]) -> list[str]:
    """Names of the outputs in the request; all outputs if it names none."""
    names: list[Any] = [
        output.get("name") if isinstance(output, dict) else output
        for output in body.get("outputs") or ()
    ]
    for name in names:
        if name not in list(known):
            raise ModelError(f"there is no output {name!r}; outputs are {', '.join(known)}")
    return names or list(known)


def _frame(inputs: Any) -> pd.DataFrame:
    """A row for each image, with a column for each tensor."""
    import pandas as pd

    columns: dict[str, list[str]] = {}
    for tensor in inputs or ():
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if name not in INPUTS:
            raise ModelError(f"there is no input {name!r}; send {EXAMPLE}")
        if "data" not in tensor:
            raise ModelError(f"the input {name} has no data; binary tensors are not supported")
        data = tensor["data"]
        if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
            raise ModelError(f"the input {name} is not a list of texts; send {EXAMPLE}")
        shape = tensor.get("shape")
        if tensor.get("datatype") != "BYTES" or not _is_shape(shape, len(data)):
            raise ModelError(
                f"the input {name} is of datatype {tensor.get('datatype')} and shape {shape}; "
                f"{len(data)} texts are of datatype BYTES and shape [{len(data)}]"
            )
        columns[name] = data
    if "image" not in columns or len({len(data) for data in columns.values()}) > 1:
        raise ModelError(f"send an image, and a category for each of them or none: {EXAMPLE}")
    return pd.DataFrame(columns)


def _is_shape(shape: Any, length: int) -> bool:
    is_list = isinstance(shape, list) and all(isinstance(side, int) for side in shape)
    return is_list and bool(shape) and math.prod(shape) == length


def _data(values: pd.Series) -> list[Any]:
    """A column for JSON: detections as JSON text, missing values as null."""
    return [json.dumps(value) if isinstance(value, list) else value for value in values.tolist()]
