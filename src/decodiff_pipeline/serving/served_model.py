"""The model as MLflow serves it: this file is logged with every version ("models from code").

So it is small, and imports the installed package for everything else.
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
    """Answers rows of ``image`` (the bytes of an image file) and ``category``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the pipeline and the thresholds that were logged with this file.

        Where the environment variable ``DECODIFF_THRESHOLDS`` names a JSON file of thresholds by
        category, these take the place of the logged ones. ``DECODIFF_REQUEST_LOG`` names the
        folder of a request log, ``DECODIFF_ONNX`` an ONNX export of the pipeline, which ONNX
        Runtime then computes.
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
        """Score a batch.

        Args:
            context: MLflow's, not used.
            model_input: Columns ``image`` (bytes, or text in base64) and ``category``; where that
                is ``auto``, empty or missing, it is recognised.
            params: ``map_bits``: 8 (default), 16, or 0 for no map. ``threshold``: of all images in
                the request; ``None`` (default) for their categories' own. ``min_area``: pixels
                that a flagged region has at least to be a detection; 1 by default.

        Returns:
            A row for each image: ``category``, ``category_certainty``, ``score``, ``threshold``,
            ``threshold_from``, ``decision``, ``map`` (PNG in base64, of the image's own size),
            ``pixel_threshold``, ``detections`` (a list of the fields of
            `deco.detections.Detection`), ``model_version`` (``name/version``, or ``None``),
            ``model_sha256`` and ``request_id``.

        Raises:
            MlflowException: The request cannot be answered; the text says which image and why.
                MLflow passes on the text of no other exception.
        """
        start, request_id = time.perf_counter(), uuid.uuid4().hex
        try:
            if "image" not in model_input:
                raise ModelError("the request has no column image; send image and category")
            images = image_bytes(model_input["image"])
            categories = _categories(model_input)
            answers = self._scorer.score(images, categories, **_known(params or {}))
        except (ImageError, ModelError) as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error
        except Exception as error:
            logger.exception("request %s failed", request_id)
            msg = f"the server failed; its log says why, under the request {request_id}"
            raise MlflowException(msg, error_code=INTERNAL_ERROR) from error
        if self._log is not None:
            latency_ms = (time.perf_counter() - start) * 1000
            named = [str(answer.category) for answer in answers]
            self._log.write(request_id, images, named, answers, latency_ms)
        return _table(answers, self._told | {"request_id": request_id})


def _known(params: dict[str, Any]) -> dict[str, Any]:
    kinds = {"map_bits": int, "threshold": float, "min_area": int}
    return {
        name: kind(params[name]) for name, kind in kinds.items() if params.get(name) is not None
    }


def _categories(model_input: pd.DataFrame) -> list[str]:
    if "category" not in model_input:
        return [AUTO] * len(model_input)
    return [str(one) if pd.notna(one) and one != "" else AUTO for one in model_input["category"]]


def _table(answers: list[Any], told: dict[str, str | None]) -> pd.DataFrame:
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
                "detections": answer.detections and [one._asdict() for one in answer.detections],
                **told,
            }
            for answer in answers
        ],
        dtype=object,  # a missing threshold stays null, where a float column would make it NaN
    )


mlflow.models.set_model(ServedModel())
