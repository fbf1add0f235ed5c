"""What identifies a logged model: its digests, and the version told from what lies beside it."""

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
    """What an answer says of the model that gave it."""

    # ``name/version`` in the model registry; ``None`` where that is not known for sure
    number: str | None
    sha256: str  # over the pipeline's files, computed from them; the version's tag ``model_sha256``


def served_version(pipeline: Path) -> ServedVersion:
    """The version that a logged pipeline belongs to.

    A served model is not told its number. But MLflow writes it beside the files when it fetches
    ``models:/name/version`` or ``models:/name@alias``, and it stays there in a copy. It is
    believed only while the files are those that were logged.

    Args:
        pipeline: The pipeline's folder within the MLflow model.
    """
    number = _number(pipeline.parents[1]) if len(pipeline.parents) > 1 else None
    return ServedVersion(number, folder_sha256(pipeline))


def _number(model: Path) -> str | None:
    """``name/version`` of a fetched MLflow model; ``None`` where it cannot be told."""
    import yaml
    from mlflow.models import Model
    from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

    try:
        fetched = yaml.safe_load((model / REGISTERED_MODEL_META_FILE_NAME).read_text("utf-8"))
        name, version = fetched["model_name"], fetched["model_version"]
        changed = differing(model, Model.load(str(model)).metadata or {})
    except FileNotFoundError:
        return None  # a folder that no registry was asked for
    except Exception as error:  # an answer without a number is better than none
        logger.warning("the version of the model in %s is unknown (%s)", model, error)
        return None
    if changed:
        logger.warning("%s differs from what was logged, so its answers name no version", model)
    return None if changed or not (name and version) else f"{name}/{version}"


def logged_folder(model: Path) -> Path:
    """The pipeline's folder within a downloaded model.

    Raises:
        ModelError: There is none.
    """
    found = sorted(model.glob("artifacts/*/model_index.json"))
    if not found:
        msg = f"the logged model in {model} holds no pipeline; register the model again"
        raise ModelError(msg)
    return found[0].parent


def differing(model: Path, tags: Mapping[str, str]) -> list[str]:
    """Which `DIGESTS` of a downloaded model are not those of a version's tags."""
    thresholds = json.loads((model / "artifacts" / "thresholds.json").read_text(encoding="utf-8"))
    values = (folder_sha256(logged_folder(model)), sha256_of(thresholds))
    return [tag for tag, value in zip(DIGESTS, values, strict=True) if tags.get(tag) != value]
