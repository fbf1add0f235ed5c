"""Registers a trained pipeline as a version in MLflow's model registry, after a check."""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.provenance import data_digest
from decodiff_pipeline.deco import weights
from decodiff_pipeline.deco.digests import folder_sha256, sha256_of
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry.evaluation_records import (
    METRICS_FILE,
    RECORD_FILE,
    keep_record,
    log_record,
)
from decodiff_pipeline.registry.logged_model import (
    SERVING_TAGS,
    TrainedModel,
    check_model,
    log_model,
    serving_tags,
)
from decodiff_pipeline.registry.versions import Version
from decodiff_pipeline.tracking.mlflow_values import (
    first_line,
    numbers_in,
    patience,
    prepare_environment,
)
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd
    from mlflow import MlflowClient

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.registry.config import RegistrationConfig

logger = logging.getLogger(__name__)

PARAMETERS_FILE = "parameters.json"
SERVING_PORT = 5001  # 5000 is the port of `mlflow ui`
SERVER = "python -m decodiff_pipeline.serving.server"
EXAMPLE_SIDE = 512  # pixels


def register(
    model: TrainedModel, config: RegistrationConfig, tracked_run: str | None = None
) -> dict[str, Any]:
    """Log a model, check that it answers, and register it as a new version.

    If the newest version has the same files, thresholds and limits, no version is added: the
    newest version is returned, and the metrics of this run are linked to it.

    Args:
        tracked_run: Id of the run that registers; by default a new run.

    Returns:
        ``name``, ``version``, ``new``, ``alias``, ``run_id``, ``model_id``, ``model_uri``,
        ``sha256`` (of the pipeline's files), ``tags``, ``tracking_uri`` and ``serve`` (a command).

    Raises:
        ModelError: The logged model does not answer, its files differ, or MLflow cannot be
            reached.
    """
    prepare_environment()
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    tags = {**model.tags, **serving_tags(model, config)}
    try:
        with patience(), _run(tracked_run) as run_id:
            existing = _same_version(client, config.model_name, tags)
            if existing is not None:
                logger.info("%s is the same model; no version was added", existing.uri)
            registered = existing or _add_version(model, config, tags, run_id)
            # For an existing version too: the run that added it may have been interrupted.
            moved = _set_alias(client, registered, config.alias)
            _keep_evaluation(client, model, registered.run_id, new=existing is None)
            _link_metrics(client, registered.model_id, run_id, model.metrics)
    except (MlflowException, OSError) as error:
        uri = redact(mlflow.get_tracking_uri())
        raise ModelError(
            f"the model could not be registered in MLflow at {uri} ({first_line(error)}); it "
            f"remains in {model.folder}: check MLflow, then run `{kedro_run('registration')}`"
        ) from error
    return {
        "name": registered.name,
        "version": registered.number,
        "new": existing is None,
        "alias": config.alias if moved else None,
        "run_id": run_id,
        "model_id": registered.model_id,
        "model_uri": registered.uri,
        "sha256": tags["model_sha256"],
        "tags": tags,
        "tracking_uri": redact(mlflow.get_tracking_uri()),
        "serve": f"{SERVER} --model {registered.uri} --port {SERVING_PORT}",
    }


def identity_tags(
    folder: Path,
    thresholds: Mapping[str, Any],
    manifest: pd.DataFrame,
    record: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, str]:
    """Tags that identify a model and its code, data and parameters, as far as known.

    ``dvc_revision`` is set later by `decodiff_pipeline.record`, when ``dvc.lock`` is written.

    Args:
        manifest: Manifest of the training and evaluation data.
        record: From `training.model_record.make_record`; ignored if it belongs to another model.

    Raises:
        ModelError: The folder does not contain a complete pipeline.
    """
    sha256 = folder_sha256(folder)
    training = record if record.get("model_sha256") == sha256 else {}
    names = [source.get("parameter_overrides") for source in (training, provenance)]
    overrides = sorted({name for text in names if text for name in text.split(", ")})
    tags = {
        "model_sha256": sha256,
        "thresholds_sha256": sha256_of(dict(thresholds)),
        "data_digest": data_digest(manifest),
        "autoencoder_digest": weights.digest(weights.AutoencoderConfig(str(folder), "vae")),
        "git_commit": training.get("git_commit"),
        "git_dirty": training.get("git_dirty"),
        "parameters_sha256": sha256_of(training["parameters"]) if training else None,
        "parameter_overrides": ", ".join(overrides) or None,
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def example_of(manifest: pd.DataFrame, images: ImageFolder) -> tuple[bytes, str]:
    """An image of the data set as the model's input example, preferably a test image.

    Returns:
        PNG of at most `EXAMPLE_SIDE` pixels per side, and its category.
    """
    order = manifest.assign(rank=(manifest["split"] != "test").astype(int))
    row = order.sort_values(["rank", "category", "path"]).iloc[0]
    image = images.read(row["path"])
    image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue(), str(row["category"])


@contextmanager
def _run(tracked: str | None) -> Iterator[str]:
    import mlflow

    if tracked:
        yield tracked
        return
    with mlflow.start_run(run_name="registration") as run:
        yield run.info.run_id


def _add_version(
    model: TrainedModel, config: RegistrationConfig, tags: Mapping[str, str], run_id: str
) -> Version:
    import mlflow

    info = log_model(model, config, tags, run_id)
    check_model(info, model)
    added = mlflow.register_model(info.model_uri, config.model_name, tags=dict(tags))
    return Version(added.name, str(added.version), tags, run_id, info.model_id)


def _set_alias(client: MlflowClient, registered: Version, alias: str | None) -> bool:
    """Set the alias to the version; returns whether it moved."""
    if alias is None:
        return False
    aliases = client.get_registered_model(registered.name).aliases
    if str(aliases.get(alias)) == registered.number:
        return False
    client.set_registered_model_alias(registered.name, alias, registered.number)
    return True


def _keep_evaluation(client: MlflowClient, model: TrainedModel, run_id: str, *, new: bool) -> None:
    """Log metrics, parameters and evaluation record to the version's run."""
    if RECORD_FILE not in {file.path for file in client.list_artifacts(run_id)}:
        client.log_dict(run_id, dict(model.metrics), METRICS_FILE)
        client.log_dict(run_id, dict(model.parameters), PARAMETERS_FILE)
        log_record(client, run_id, model.record)
    elif not new:  # the run's record may be of other data
        keep_record(client, run_id, model.record)


def _same_version(client: MlflowClient, name: str, tags: Mapping[str, str]) -> Version | None:
    """The newest version if it has the same model and serving tags and its files exist."""
    import mlflow
    from mlflow.exceptions import MlflowException

    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        return None
    newest = max(versions, key=lambda version: int(version.version))
    compared = ("model_sha256", "thresholds_sha256", *SERVING_TAGS)
    if any(newest.tags.get(key) != tags[key] for key in compared):
        return None
    try:
        info = mlflow.models.get_model_info(f"models:/{name}/{newest.version}")
    except (MlflowException, OSError):
        return None
    return Version(name, str(newest.version), newest.tags, str(newest.run_id), info.model_id)


def _link_metrics(
    client: MlflowClient, model_id: str, run_id: str, metrics: Mapping[str, Any]
) -> None:
    """Link the run's metrics to the logged model, except those that MLflow has linked."""
    from mlflow.entities import Metric

    all_linked = client.get_logged_model(model_id).metrics or []
    linked = {(metric.key, metric.value) for metric in all_linked if metric.run_id == run_id}
    timestamp = client.get_run(run_id).info.start_time
    missing = [
        Metric(key, value, timestamp, 0, model_id=model_id, run_id=run_id)
        for key, value in numbers_in(metrics).items()
        if (key, value) not in linked
    ]
    if missing:
        client.log_batch(run_id, metrics=missing)
