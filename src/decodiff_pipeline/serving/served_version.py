"""Identifies a logged model: its digests and its version in the model registry."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.deco.digests import folder_sha256, sha256_of
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

DIGESTS = ("model_sha256", "thresholds_sha256")


@dataclass(frozen=True)
class ServedVersion:
    """Version and digest of a served model, as in every response."""

    number: str | None  # ``name/version`` in the model registry; ``None`` if not certain
    sha256: str  # of the pipeline's files; equals the version's tag ``model_sha256``


def served_version(pipeline: Path) -> ServedVersion:
    """The version that a logged pipeline belongs to.

    MLflow does not pass the version to a model. It writes a file with the version beside the model
    when it downloads ``models:/name/version`` or ``models:/name@alias``. That version counts only
    if the model's files have the logged digests.

    Args:
        pipeline: The pipeline's folder within the MLflow model.
    """
    number = _number(pipeline.parents[1]) if len(pipeline.parents) > 1 else None
    return ServedVersion(number, folder_sha256(pipeline))


def _number(model: Path) -> str | None:
    """``name/version`` of a downloaded MLflow model; ``None`` if unknown."""
    import yaml
    from mlflow.models import Model
    from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

    try:
        meta = yaml.safe_load((model / REGISTERED_MODEL_META_FILE_NAME).read_text("utf-8"))
        name, version = meta["model_name"], meta["model_version"]
        changed = differing(model, Model.load(str(model)).metadata or {})
    except FileNotFoundError:
        return None  # not downloaded from a registry
    except Exception as error:  # the model can be served without its version
        logger.warning("the version of the model in %s is unknown (%s)", model, error)
        return None
    if changed:
        logger.warning("%s differs from the logged model: responses contain no version", model)
    return None if changed or not (name and version) else f"{name}/{version}"


def logged_folder(model: Path) -> Path:
    """The pipeline's folder within a downloaded model.

    Raises:
        ModelError: There is none.
    """
    indexes = sorted(model.glob("artifacts/*/model_index.json"))
    if not indexes:
        msg = f"the logged model in {model} contains no pipeline; register the model again"
        raise ModelError(msg)
    return indexes[0].parent


def differing(model: Path, tags: Mapping[str, str]) -> list[str]:
    """The `DIGESTS` in which a downloaded model differs from the tags of a version."""
    thresholds = json.loads((model / "artifacts" / "thresholds.json").read_text(encoding="utf-8"))
    values = (folder_sha256(logged_folder(model)), sha256_of(thresholds))
    return [tag for tag, value in zip(DIGESTS, values, strict=True) if tags.get(tag) != value]
