"""Catalog dataset of seed replicates: MLflow runs of the same configuration with other seeds."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.datasets.read_only import ReadOnlyDataset
from decodiff_pipeline.tracking.mlflow_values import artifact_bytes
from decodiff_pipeline.tracking.tracker import active_run_id

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

SEED = "training.seed"
# Seeds of the random numbers of training.
SEEDS = (SEED, "latent_cache.augmentation.seed")
# Parameters without effect on weights and metrics.
WITHOUT_EFFECT = (
    "training.resume",
    "training.progress_bar",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
)
IGNORED = frozenset((*SEEDS, *WITHOUT_EFFECT))
COMPARED_GROUPS = ("training", "scoring", "preprocessing", "autoencoder", "latent_cache")
MEASUREMENT = (
    "evaluation.protocol",
    "evaluation.resolution",
    "evaluation.aupro_limit",
    "evaluation.num_inference_steps",
)
MAX_RUNS = 200  # the newest finished runs of the experiment


class SeedReplicatesDataset(ReadOnlyDataset[dict[int, dict[str, Any]]]):
    """Metrics of the finished MLflow runs that differ from the current run only in their seeds.

    The comparison uses logged parameters; those of the current run are logged when it starts. A
    seed replicate is in the same experiment and has the same ``training.*`` except for `IGNORED`.
    The other groups in `COMPARED_GROUPS`, the parameters in `MEASUREMENT` and the data digest are
    equal where both runs have them. Without an active MLflow run, or if MLflow does not respond,
    the result is empty.
    """

    read_only = "seed_replicates is read-only; the tracking hook logs runs to MLflow"

    def __init__(self, *, filename: str, metadata: dict[str, Any] | None = None) -> None:
        """Set the artifact.

        Args:
            filename: Name of the metrics file (JSON) in a run's artifacts.
        """
        self._filename = filename
        self.metadata = metadata

    def load(self) -> dict[int, dict[str, Any]]:
        """Metrics of seed replicates: ``training.seed`` → metrics of the newest run."""
        run_id = active_run_id()
        if not run_id:
            return {}
        try:
            return self._seed_replicates(run_id)
        except Exception as error:  # the evaluation goes on without the spread over seeds
            logger.info("no spread of metrics over seeds: MLflow raised %s", type(error).__name__)
            return {}

    def _seed_replicates(self, run_id: str) -> dict[int, dict[str, Any]]:
        from mlflow import MlflowClient

        client = MlflowClient()
        current = client.get_run(run_id)
        metrics: dict[int, dict[str, Any]] = {}
        for run in client.search_runs(
            [current.info.experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            max_results=MAX_RUNS,
            order_by=["attributes.start_time DESC"],
        ):
            seed = run.data.params.get(SEED)
            if seed is None or int(seed) in metrics or not are_seed_replicates(run, current):
                continue
            if self._filename in {file.path for file in client.list_artifacts(run.info.run_id)}:
                metrics[int(seed)] = json.loads(artifact_bytes(run.info.run_id, self._filename))
        return metrics

    def _describe(self) -> dict[str, Any]:
        return {"filename": self._filename}


def are_seed_replicates(first: Run, second: Run) -> bool:
    """Whether two different runs differ only in their seeds."""
    if first.info.run_id == second.info.run_id:
        return False
    digests = {run.data.tags.get("data_digest") for run in (first, second)} - {None}
    if len(digests) > 1:
        return False
    a, b = (
        {key: value for key, value in run.data.params.items() if key not in IGNORED}
        for run in (first, second)
    )
    if any(key.startswith("training.") for key in a.keys() ^ b.keys()):
        return False
    return all(
        a[key] == b[key]
        for key in a.keys() & b.keys()
        if key in MEASUREMENT or key.split(".")[0] in COMPARED_GROUPS
    )
