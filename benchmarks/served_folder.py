"""A folder that MLflow serves, without a run or a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.registry.config import RegistrationConfig
from decodiff_pipeline.registry.logged_model import as_code

if TYPE_CHECKING:
    from pathlib import Path


def save_model(models: Path, target: Path) -> None:
    """Make the folder.

    Args:
        models: Folder with ``pipeline`` and ``thresholds.json``, as training and evaluation leave
            it.
        target: The folder to make.
    """
    import mlflow

    mlflow.pyfunc.save_model(
        target,
        artifacts={
            "pipeline": str(models / "pipeline"),
            "thresholds": str(models / "thresholds.json"),
        },
        **as_code(RegistrationConfig()),
    )
