"""What a run will need late is looked for before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from decodiff_pipeline.deco.config import PreprocessConfig, require_places
from decodiff_pipeline.deco.weights import AutoencoderConfig, locate
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

AUTOENCODER = "params:autoencoder"
EVALUATION = "params:evaluation"
REFERENCES = "reference_evaluations"
TRAINING, CHAMPION_MODEL = "params:training", "champion_model"
SCORING, PREPROCESSING = "params:scoring", "params:preprocessing"


class PreflightHooks:
    """Stop within seconds where weights or a revision is missing or parameters do not agree."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Locate the weights, downloading them if the hub has to be asked; look up the revision.

        Raises:
            ConfigurationError: One of them is not there, or scoring does not suit preprocessing.
            ModelError: The weights that training is to start from cannot be had or do not fit.
        """
        if {SCORING, PREPROCESSING} <= pipeline.inputs():
            scoring, geometry = catalog.load(SCORING), catalog.load(PREPROCESSING)
            if isinstance(scoring, ScoringConfig) and isinstance(geometry, PreprocessConfig):
                require_places(scoring.discrepancy, geometry)
        if AUTOENCODER in pipeline.inputs():
            config = catalog.load(AUTOENCODER)
            if isinstance(config, AutoencoderConfig):
                locate(config)
        if {EVALUATION, REFERENCES} <= pipeline.inputs():
            evaluation = catalog.load(EVALUATION)
            if isinstance(evaluation, EvaluationConfig):
                catalog.load(REFERENCES).check(evaluation.compare_with)
        if {TRAINING, CHAMPION_MODEL, AUTOENCODER} <= pipeline.inputs():
            training = catalog.load(TRAINING)
            if isinstance(training, TrainingConfig) and training.init_from is not None:
                from decodiff_pipeline.training.initial_weights import check_initial_weights

                check_initial_weights(
                    training, catalog.load(CHAMPION_MODEL), catalog.load(AUTOENCODER)
                )
