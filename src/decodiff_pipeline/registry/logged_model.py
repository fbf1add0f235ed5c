"""Logs the trained pipeline as an MLflow model from code, and checks it by loading it again."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.deco.digests import file_sha256, folder_sha256
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.serving import served_version
from decodiff_pipeline.serving.served_version import DIGESTS
from decodiff_pipeline.tracking.mlflow_values import as_registered, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from mlflow.models.model import ModelInfo

    from decodiff_pipeline.registry.config import RegistrationConfig

SERVED_MODEL = Path(served_version.__file__).with_name("served_model.py")
SERVING_TAGS = ("serving_config", "served_model_sha256", "monitoring_reference")
REQUIREMENTS = (
    "accelerate",
    "diffusers",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "scipy",
    "torch",
)


@dataclass(frozen=True)
class TrainedModel:
    """The content of a version."""

    folder: Path  # the pipeline, written by ``save_pretrained``
    thresholds: Mapping[str, Any]  # from the evaluation
    metrics: Mapping[str, Any]  # from the evaluation
    tags: Mapping[str, str]  # from :func:`registration.identity_tags`
    example: tuple[bytes, str]  # an encoded image and its category
    record: pd.DataFrame  # the evaluation's row for each image, for comparison with later models
    reference: Mapping[str, Any] | None = None  # of the monitoring, from the evaluation
    # parameters of training and threshold fitting by group; empty if unknown
    parameters: Mapping[str, Any] = field(default_factory=dict)


def serving_tags(model: TrainedModel, config: RegistrationConfig) -> dict[str, str]:
    """The `SERVING_TAGS`: limits, code and monitoring reference that the served model uses."""
    values = (
        json.dumps(serving_config(config)),
        file_sha256(SERVED_MODEL),
        str(model.reference is not None).lower(),
    )
    return dict(zip(SERVING_TAGS, values, strict=True))


def serving_config(config: RegistrationConfig) -> dict[str, int]:
    """The request limits and batch size that are logged with the model."""
    return config.model_dump(include={"max_images", "max_pixels", "batch_size"})


def log_model(
    model: TrainedModel, config: RegistrationConfig, tags: Mapping[str, str], run_id: str
) -> ModelInfo:
    """Log a model from code, with signature and input example, to a run and its experiment."""
    import mlflow
    import pandas as pd
    from mlflow.models import Model

    image, category = model.example
    with tempfile.TemporaryDirectory() as folder:
        thresholds = Path(folder, "thresholds.json")
        thresholds.write_text(json.dumps(model.thresholds, indent=2), encoding="utf-8")
        artifacts = {"pipeline": str(model.folder), "thresholds": str(thresholds)}
        if model.reference is not None:
            reference = Path(folder, "monitoring_reference.json")
            reference.write_text(json.dumps(model.reference), encoding="utf-8")
            artifacts["monitoring_reference"] = str(reference)
        run = mlflow.get_run(run_id)
        # By default, Model.log puts the model into the experiment `Default`.
        logged = mlflow.initialize_logged_model(
            config.model_name,
            source_run_id=run_id,
            tags=dict(tags),
            params=run.data.params,
            experiment_id=run.info.experiment_id,
        )
        # pyfunc.log_model makes this call without `run_id`, with MLflow's active run of the thread.
        return Model.log(
            None,
            mlflow.pyfunc,
            name=config.model_name,
            model_id=logged.model_id,
            run_id=run_id,
            tags=dict(tags),
            metadata={tag: model.tags[tag] for tag in DIGESTS},
            artifacts=artifacts,
            input_example=pd.DataFrame({"image": [image], "category": [category]}),
            **as_code(config),
        )


def as_code(config: RegistrationConfig) -> dict[str, Any]:
    """Arguments of MLflow's "models from code", which are the same for every trained model."""
    return {
        "python_model": str(SERVED_MODEL),
        "model_config": serving_config(config),
        "signature": _signature(),
        "pip_requirements": [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
    }


def check_model(info: ModelInfo, model: TrainedModel) -> None:
    """Load the logged model, compare its files with the original, and score its input example.

    Raises:
        ModelError: The files differ, or the model does not return a finite score.
    """
    import mlflow
    import pandas as pd

    local = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    logged = folder_sha256(local / "artifacts" / model.folder.name)
    if logged != folder_sha256(model.folder):
        raise ModelError(
            f"the model logged as {info.model_uri} differs from {model.folder} (SHA-256 "
            f"{logged[:12]}…); nothing was registered: check the artifact store and its disk"
        )
    image, category = model.example
    rows = pd.DataFrame({"image": [image], "category": [category]})
    try:
        with as_registered():
            answer = mlflow.pyfunc.load_model(str(local)).predict(rows, params={"map_bits": 8})
        score = float(answer["score"][0])
    except Exception as error:
        msg = f"the logged model does not answer ({first_line(error)}); nothing was registered"
        raise ModelError(msg) from error
    if not math.isfinite(score):
        raise ModelError(f"the logged model scores {score}; nothing was registered")


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, Object, Property

    pixels = ("x", "y", "width", "height", "area")
    detection = Object(
        [Property(name, DataType.long) for name in pixels]
        + [Property("mean_score", DataType.double)]
    )

    return ModelSignature(
        # MLflow decodes a binary column as base64 and drops invalid characters without an error.
        inputs=Schema(
            [ColSpec(AnyType(), "image"), ColSpec(DataType.string, "category", required=False)]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.string, "category"),
                ColSpec(DataType.double, "category_certainty", required=False),
                ColSpec(DataType.double, "score", required=False),
                ColSpec(DataType.double, "threshold", required=False),
                ColSpec(DataType.string, "threshold_from", required=False),
                ColSpec(DataType.string, "decision", required=False),
                ColSpec(DataType.string, "map", required=False),
                ColSpec(DataType.double, "pixel_threshold", required=False),
                ColSpec(Array(detection), "detections", required=False),
                ColSpec(DataType.string, "model_version", required=False),
                ColSpec(DataType.string, "model_sha256"),
                ColSpec(DataType.string, "request_id"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("map_bits", DataType.long, 8),
                ParamSpec("threshold", DataType.double, None),
                ParamSpec("min_area", DataType.long, 1),
            ]
        ),
    )
