"""Seed replicates, runs of one configuration with other seeds, as a catalog dataset."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.tracking.mlflow_values import artifact_bytes
from decodiff_pipeline.tracking.tracker import active_run_id

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

SEED = "training.seed"
# Seeds of what only training draws: with another one a run is the same experiment again.
SEEDS = (SEED, "latent_cache.augmentation.seed")
# These change nothing in what is learnt or measured.
INDIFFERENT = (
    "training.resume",
    "training.progress_bar",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
)
FREE = frozenset((*SEEDS, *INDIFFERENT))
COMPARED = ("training", "scoring", "preprocessing", "autoencoder", "latent_cache")
MEASURED_BY = (
    "evaluation.protocol",
    "evaluation.resolution",
    "evaluation.aupro_limit",
    "evaluation.num_inference_steps",
)
MOST_RUNS = 200  # newest first


class SeedReplicatesDataset(AbstractDataset[NoReturn, dict[int, dict[str, Any]]]):
    """Metrics of the finished MLflow runs that differ from this one by their seeds alone.

    Of this run MLflow has the parameters already (its hook logs them first), so runs are compared
    by what was logged. A run is a seed replicate if it is of the same experiment, ``training.*`` is
    the same but for seeds and what changes no result, the other groups in `COMPARED` and the way of
    measuring are the same where both runs have them, and so is the data's digest. Without a tracked
    run, or without an answer from MLflow, there are none.
    """

    def __init__(self, *, filename: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the artifact.

        Args:
            filename: The metrics of a run among its artifacts (JSON).
        """
        self._filename = filename
        self.metadata = metadata

    def load(self) -> dict[int, dict[str, Any]]:
        """Metrics by seed; of runs with one seed the newest."""
        run_id = active_run_id()
        if not run_id:
            return {}
        try:
            return self._seed_replicates(run_id)
        except Exception as error:  # a spread is worth less than the evaluation it stands beside
            logger.info("metrics get no spread over seeds: MLflow answers %s", type(error).__name__)
            return {}

    def _seed_replicates(self, run_id: str) -> dict[int, dict[str, Any]]:
        from mlflow import MlflowClient

        client = MlflowClient()
        own = client.get_run(run_id)
        found: dict[int, dict[str, Any]] = {}
        for run in client.search_runs(
            [own.info.experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            max_results=MOST_RUNS,
            order_by=["attributes.start_time DESC"],
        ):
            seed = run.data.params.get(SEED)
            if seed is None or int(seed) in found or not are_seed_replicates(run, own):
                continue
            if self._filename in {file.path for file in client.list_artifacts(run.info.run_id)}:
                found[int(seed)] = json.loads(artifact_bytes(run.info.run_id, self._filename))
        return found

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: runs are logged by the tracking hook.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError("runs are only read; the tracking hook writes them")

    def _describe(self) -> dict[str, Any]:
        return {"filename": self._filename}


def are_seed_replicates(run: Run, own: Run) -> bool:
    """Whether two runs differ by their seeds alone."""
    if run.info.run_id == own.info.run_id:
        return False
    digests = {other.data.tags.get("data_digest") for other in (run, own)} - {None}
    if len(digests) > 1:
        return False
    theirs, ours = run.data.params, own.data.params
    if _of_training(theirs) != _of_training(ours):
        return False
    return all(
        theirs[key] == ours[key]
        for key in theirs.keys() & ours.keys()
        if key in MEASURED_BY or (key.split(".")[0] in COMPARED and key not in FREE)
    )


def _of_training(parameters: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in parameters.items()
        if key.startswith("training.") and key not in FREE
    }
