"""Trains and evaluates the variants of an ablation, with each network and forward pass once."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.autoencoder.config import LATENT_STRIDE
from decodiff_pipeline.deco import weights
from decodiff_pipeline.deco.config import require_places
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.experiments.ablation_config import plan
from decodiff_pipeline.training.initial_weights import initial_sha256
from decodiff_pipeline.training.scoring import images_to_fit

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.data.latent_cache import LatentCache
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.experiments.ablation_config import AblationConfig, Job, PlannedVariant
    from decodiff_pipeline.experiments.ablation_store import AblationStore
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)

FORMAT = 2  # to be increased when the same parameters give other results
DATA_COLUMNS = ("path", "sha256", "category", "split", "label", "mask_path", "mask_pixels")
HOW_TO_CACHE = {"batch_size", "shard_size"}  # parameters without an effect on the latents
# Scoring parameters that apply to computed discrepancies. Variants that differ only in these share
# one forward pass over the test images.
AFTERWARDS: dict[str, Any] = {
    "batch_size": True,
    "fit": True,
    "limit_quantile": True,
    "limit_factor": True,
    "discrepancy": {
        "normalisation",
        "pixel_limit",
        "latent_limit",
        "pixel_sigma",
        "latent_sigma",
        "fusion",
        "pixel_weight",
        "score_from",
        "top_share",
        "level_power",
        "level_sigma",
        "image_scores",
    },
}


@dataclass(frozen=True)
class AblationData:
    """Inputs that all variants share."""

    manifest: pd.DataFrame  # the validated manifest
    images: ImageFolder  # the raw images
    cache: LatentCache  # latents of the train and val images
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig  # autoencoder of the latents
    latents: LatentCacheConfig  # parameters of the cache
    # ``num_inference_steps`` is ignored, because each variant has its own
    evaluation: EvaluationConfig

    def scored(self) -> pd.DataFrame:
        """The good and defective test images.

        Raises:
            DataError: One of the two labels is missing, or a category has no training image.
        """
        good = self.manifest["label"] == "good"
        trained = set(self.manifest[good & (self.manifest["split"] == "train")]["category"])
        certain = self.manifest["label"].isin(["good", "defective"])
        rows = self.manifest[certain & (self.manifest["split"] == "test")]
        if not {"good", "defective"} <= set(rows["label"]):
            raise DataError(
                "the test split needs good and defective images to compare variants by; see the "
                "validation report for what the manifest holds"
            )
        untrained = sorted(set(rows["category"]) - trained)
        if untrained:
            raise DataError(
                f"category {untrained[0]!r} has test images but no good train image; exclude it "
                "with data.categories or data.exclude"
            )
        return rows.sort_values("category", kind="stable")

    def network_identity(self, training: TrainingConfig) -> dict[str, Any]:
        """Everything that determines a network's weights.

        Raises:
            ConfigurationError: ``training.init_from`` does not exist.
        """
        training_rows = self.manifest[self.manifest["split"].isin(["train", "val"])]
        return {
            "format": FORMAT,
            "images_sha256": _table_digest(training_rows),
            "autoencoder_sha256": weights.digest(self.autoencoder),
            "preprocessing": self.geometry.facts(),
            "latents": self.latents.model_dump(mode="json", exclude=HOW_TO_CACHE),
            "training": {
                **training.identity(),
                "init_from": initial_sha256(training.init_from),
            },
        }

    def result_identity(self, job: Job) -> dict[str, Any]:
        """Everything that determines a variant's metrics."""
        return self.network_identity(job.training) | {
            "test_images_sha256": _table_digest(self.manifest[self.manifest["split"] == "test"]),
            "scoring": job.scoring.model_dump(mode="json", exclude={"batch_size"}),
            "evaluation": self._evaluation_identity(),
        }

    def _evaluation_identity(self) -> dict[str, Any]:
        """Without the resolution if it is the default, so that older keys stay valid."""
        fields = {"protocol", "aupro_limit"}
        if self.evaluation.resolution != "model":
            fields.add("resolution")
        return self.evaluation.model_dump(mode="json", include=fields)


def run_ablation(
    data: AblationData,
    store: AblationStore,
    config: AblationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> list[tuple[PlannedVariant, list[dict[str, Any]]]]:
    """Train and evaluate the variants whose results are not in the store.

    An interrupted run resumes at its last checkpoint.

    Returns:
        The base and then the variants, each with its metrics per seed (none if skipped):
        ``{"mean": {metric: value}, "categories": {name: {metric: value}}}``.

    Raises:
        ConfigurationError: A variant is invalid or does not match the preprocessing.
        DataError: The test split lacks a label, or there are no good val images for the fit of
            the scoring. Both are checked before any training.
    """
    rows = data.scored()
    planned = plan(config, training, scoring, has_posterior=_has_posterior(data.autoencoder))
    requested = [job for variant in planned if variant.skipped is None for job in variant.jobs]
    for job in requested:
        require_places(job.scoring.discrepancy, data.geometry)
        job.training.corruption.sizes_for(data.geometry.image_size // LATENT_STRIDE)
    if any(job.scoring.looks_at_images for job in requested):
        images_to_fit(data.manifest, set(rows["category"]))
    jobs = {_key(data.result_identity(job)): job for job in requested}
    missing = {key: job for key, job in jobs.items() if store.result(key) is None}
    logger.info("ablation: %d of %d results have to be computed", len(missing), len(jobs))
    base = {_key(data.network_identity(job.training)) for job in planned[0].jobs}
    networks = _grouped(missing, lambda job: _key(data.network_identity(job.training)))
    for number, (network, network_jobs) in enumerate(networks.items(), start=1):
        logger.info("ablation: network %d of %d", number, len(networks))
        _compute(data, store, network, network_jobs, rows)
        if network not in base and not config.keep_networks:
            store.remove_network(network)
    return [(variant, _results(variant, data, store)) for variant in planned]


def _results(
    variant: PlannedVariant, data: AblationData, store: AblationStore
) -> list[dict[str, Any]]:
    if variant.skipped is not None:
        return []
    results = [store.result(_key(data.result_identity(job))) for job in variant.jobs]
    return [result for result in results if result is not None]


def _compute(
    data: AblationData,
    store: AblationStore,
    network: str,
    jobs: dict[str, Job],
    rows: pd.DataFrame,
) -> None:
    """Train one network and evaluate it with the scoring of each job."""
    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.experiments.discrepancy_cache import (
        cache_discrepancies,
        measure_from_cache,
    )
    from decodiff_pipeline.training.setup import set_up_training
    from decodiff_pipeline.training.state import trained_network

    training = next(iter(jobs.values())).training
    checkpoints = store.network(network)
    set_up_training(
        data.manifest,
        data.cache,
        checkpoints,
        images=data.images,
        geometry=data.geometry,
        autoencoder=data.autoencoder,
        latents=data.latents,
        config=training.model_copy(update={"keep_checkpoints": 1}),
    ).run()
    for pass_jobs in _grouped(jobs, _pass_key).values():
        # Loaded for each pass, because a bfloat16 model converts its parts in place.
        autoencoder, unet = load_autoencoder(data.autoencoder), trained_network(checkpoints)
        with store.scratch() as folder:
            cached = None
            for key, job in pass_jobs.items():
                model = _model(data, autoencoder, unet, job.scoring)
                if cached is None:
                    cached = cache_discrepancies(
                        model, rows, data.images, folder, data.evaluation.batch_size
                    )
                metrics = measure_from_cache(model, cached, data.images, folder, data.evaluation)
                store.save_result(key, metrics, data.result_identity(job))


def _model(
    data: AblationData, autoencoder: Autoencoder, unet: DeCoDiffUNet, config: ScoringConfig
) -> DeCoDiffPipeline:
    from decodiff_pipeline.training.scoring_fit import build_model

    return build_model(
        autoencoder,
        unet,
        manifest=data.manifest,
        images=data.images,
        geometry=data.geometry,
        config=config,
    )


def _pass_key(job: Job) -> str:
    return _key(job.scoring.model_dump(mode="json", exclude=AFTERWARDS))


def _grouped(jobs: dict[str, Job], key: Any) -> dict[str, dict[str, Job]]:
    groups: dict[str, dict[str, Job]] = {}
    for name, job in jobs.items():
        groups.setdefault(key(job), {})[name] = job
    return groups


def _table_digest(rows: pd.DataFrame) -> str:
    columns = [name for name in DATA_COLUMNS if name in rows]
    return hashlib.sha256(rows[columns].to_csv(index=False).encode()).hexdigest()


def _key(identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _has_posterior(autoencoder: AutoencoderConfig) -> bool:
    file = weights.locate(autoencoder) / weights.CONFIG_FILE
    return json.loads(file.read_text(encoding="utf-8")).get("_class_name") != "AutoencoderTiny"
