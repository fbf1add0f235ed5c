"""The MLflow pyfunc model. This file is logged with every version ("models from code").

It imports everything else from the installed package, so that it rarely has to change.
"""

from __future__ import annotations

import base64
import logging
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR
from mlflow.pyfunc import PythonModel

from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.errors import ImageError, ModelError
from decodiff_pipeline.monitoring.reference import scores_sha256
from decodiff_pipeline.serving.request_images import image_bytes
from decodiff_pipeline.serving.request_log import RequestLog
from decodiff_pipeline.serving.scorer import Scorer
from decodiff_pipeline.serving.served_version import served_version

if TYPE_CHECKING:
    from mlflow.pyfunc import PythonModelContext

logger = logging.getLogger(__name__)

OVERRIDES_VARIABLE = "DECODIFF_THRESHOLDS"
ONNX_VARIABLE = "DECODIFF_ONNX"


class ServedModel(PythonModel):
    """Scores rows with ``image`` (the bytes of an image file) and ``category``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the logged pipeline and thresholds.

        Environment variables: ``DECODIFF_THRESHOLDS`` is a JSON file of thresholds by category
        that replace the logged ones, ``DECODIFF_REQUEST_LOG`` the folder of a request log,
        ``DECODIFF_ONNX`` an ONNX export of the pipeline to compute with ONNX Runtime.
        """
        onnx = os.environ.get(ONNX_VARIABLE)
        overrides = os.environ.get(OVERRIDES_VARIABLE)
        pipeline = Path(context.artifacts["pipeline"])
        self._scorer = Scorer.from_folder(
            pipeline,
            Path(context.artifacts["thresholds"]),
            overrides=Path(overrides) if overrides else None,
            onnx=Path(onnx) if onnx else None,
            **(context.model_config or {}),
        )
        version = served_version(pipeline)
        self._told = {"model_version": version.number, "model_sha256": version.sha256}
        self._log = RequestLog.from_environment(
            self._told | {"scores_sha256": scores_sha256(self._scorer.pipeline)}
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score the images of a request.

        Args:
            context: Not used.
            model_input: Columns ``image`` (bytes or base64 text) and ``category``, which is
                recognised if it is ``auto``, empty or missing.
            params: ``map_bits``: 8 (default), 16, or 0 for no map. ``threshold``: replaces the
                thresholds of the categories. ``min_area``: smallest area of a detection in pixels,
                1 by default.

        Returns:
            A row for each image: ``category``, ``category_certainty``, ``score``, ``threshold``,
            ``threshold_from``, ``decision``, ``map`` (base64 PNG at the size of the image),
            ``pixel_threshold``, ``detections`` (a list of the fields of
            `deco.detections.Detection`), ``model_version`` (``name/version``, or ``None``),
            ``model_sha256`` and ``request_id``; see `serving.answer.Answer`.

        Raises:
            MlflowException: The request is invalid or scoring failed. MLflow returns the message
                of this exception to the client, and of no other.
        """
        start, request_id = time.perf_counter(), uuid.uuid4().hex
        try:
            if "image" not in model_input:
                raise ModelError("the request has no column image; send image and category")
            images = image_bytes(model_input["image"])
            categories = _categories(model_input)
            answers = self._scorer.score(images, categories, **_scoring_options(params or {}))
        except (ImageError, ModelError) as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error
        except Exception as error:
            logger.exception("request %s failed", request_id)
            msg = f"the server failed; see its log for the request {request_id}"
            raise MlflowException(msg, error_code=INTERNAL_ERROR) from error
        if self._log is not None:
            latency_ms = (time.perf_counter() - start) * 1000
            scored_as = [str(answer.category) for answer in answers]
            self._log.write(request_id, images, scored_as, answers, latency_ms)
        return _table(answers, self._told | {"request_id": request_id})


def _scoring_options(params: dict[str, Any]) -> dict[str, Any]:
    types = {"map_bits": int, "threshold": float, "min_area": int}
    return {
        name: kind(params[name]) for name, kind in types.items() if params.get(name) is not None
    }


def _categories(model_input: pd.DataFrame) -> list[str]:
    if "category" not in model_input:
        return [AUTO] * len(model_input)
    values = model_input["category"]
    return [str(value) if pd.notna(value) and value != "" else AUTO for value in values]


def _table(answers: list[Any], request: dict[str, str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "category": answer.category,
                "category_certainty": answer.category_certainty,
                "score": answer.score,
                "threshold": answer.threshold,
                "threshold_from": answer.threshold_from,
                "decision": answer.decision,
                "map": answer.map and base64.b64encode(answer.map).decode("ascii"),
                "pixel_threshold": answer.pixel_threshold,
                "detections": answer.detections and [box._asdict() for box in answer.detections],
                **request,
            }
            for answer in answers
        ],
        dtype=object,  # keeps a missing threshold null; a float column would make it NaN
    )


mlflow.models.set_model(ServedModel())
