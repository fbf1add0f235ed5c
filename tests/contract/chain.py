"""The chain of pipelines on the small data set that the fixtures of this folder were made with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.datasets.champion import ChampionModel
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.unet import UNetPreset
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.comparison import EarlierEvaluation
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.monitoring.config import ReferenceConfig
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.registry.config import RegistrationConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

FIXTURES = Path(__file__).parent / "fixtures"
CONF = Path(__file__).parents[2] / "conf" / "base"
# 26,000 parameters in place of 6 million.
TINY = UNetPreset(2, 1, 2, norm_groups=2)


class NoReferences:
    """Finds nothing to compare with."""

    def load(self, compare_with: str | None) -> EarlierEvaluation:
        """Nothing, whatever is asked for."""
        return EarlierEvaluation(str(compare_with), missing="nothing there")


def parameters(autoencoder: Path, **training: Any) -> dict[str, Any]:
    """Of all pipelines, by their names in the catalog.

    The training takes six steps, and the stored checkpoint is that of the third.
    """
    train = {
        "preset": "nano", "steps": 6, "batch_size": 4, "learning_rate": 1e-3, "dropout": 0.1,
        "ema_decay": 0.9, "bfloat16": False, "standardise_latents": True, "validate_every": 3,
        "log_every": 1, "checkpoint_every": 3, "threads": 1, "progress_bar": False,
        "corruption": {"patch_sizes": [1, 2], "patch_probabilities": [0.5, 0.5]}, **training,
    }  # fmt: skip
    return {
        "params:data": DataConfig(layout="mvtec", val_fraction=0.25, calibration_fraction=0.25),
        "params:preprocessing": PreprocessConfig(resize=32, image_size=32),
        "params:validation": ValidationConfig(min_train_images=1),
        "params:autoencoder": AutoencoderConfig(source=str(autoencoder)),
        "params:compute": ComputeConfig(processes=1),
        "params:latent_cache": LatentCacheConfig(views=2, batch_size=8, dtype="float32"),
        "params:training": TrainingConfig.model_validate(train),
        "params:scoring": ScoringConfig(num_inference_steps=2, batch_size=8),
        "params:evaluation": EvaluationConfig(batch_size=8, resamples=100),
        "params:monitoring_reference": ReferenceConfig(components=2),
        "params:registration": RegistrationConfig(model_name="contract", dataset="contract"),
    }


def run(pipeline: Pipeline, folder: Path, parameters: dict[str, Any]) -> DataCatalog:
    """Runs a pipeline on the catalog that is shipped, with all its files below the folder."""
    shipped = yaml.safe_load((CONF / "catalog.yml").read_text())
    entries = {name: shipped[name] for name in pipeline.datasets() if name in shipped}
    for entry in entries.values():
        key = "path" if "path" in entry else "filepath"
        if key in entry:
            entry[key] = str(folder / entry[key].replace("${globals:dataset}", "contract"))
    in_memory = {
        "earlier_evaluations": NoReferences(),
        "seed_replicates": {},
        "champion_model": ChampionModel(folder / "champion", "contract"),
        "provenance": dict.fromkeys(["git_commit", "git_dirty", "dvc_revision", "mlflow_run_id"]),
        **parameters,
    }
    for name in in_memory:
        entries.pop(name, None)
    if "raw_images" in entries:
        entries["raw_images"]["filepath"] = str(FIXTURES / "raw")
    catalog = DataCatalog.from_config(entries)
    for name in pipeline.inputs() & in_memory.keys():
        catalog[name] = MemoryDataset(in_memory[name], copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    return catalog
