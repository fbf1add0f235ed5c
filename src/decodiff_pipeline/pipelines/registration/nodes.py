"""Node of the registration pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.registry.config import RegistrationConfig


def register_model(
    model_folder: Path,
    thresholds: dict[str, Any],
    metrics: dict[str, Any],
    reference: dict[str, Any],
    manifest: pd.DataFrame,
    images: ImageFolder,
    record: pd.DataFrame,
    model_record: dict[str, Any],
    provenance: dict[str, Any],
    registration: RegistrationConfig,
) -> dict[str, Any]:
    """Register the trained model as a version with identity tags, thresholds and metrics.

    Returns:
        See :func:`decodiff_pipeline.registry.registration.register`.
    """
    from decodiff_pipeline.registry.logged_model import TrainedModel
    from decodiff_pipeline.registry.registration import example_of, identity_tags, register

    tags = identity_tags(model_folder, thresholds, manifest, model_record, provenance)
    dataset = {"dataset": registration.dataset} if registration.dataset else {}
    model = TrainedModel(
        folder=model_folder,
        thresholds=thresholds,
        metrics=metrics,
        tags={**tags, **dataset},
        example=example_of(manifest, images.of(manifest)),
        record=record,
        reference=reference,
        parameters=model_record["parameters"] if "parameters_sha256" in tags else {},
    )
    return register(model, registration, provenance.get("mlflow_run_id"))
