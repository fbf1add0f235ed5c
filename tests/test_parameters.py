"""The shipped configuration fits the pipelines, and wrong parameters are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kedro.validation import TypeExtractor
from pydantic import TypeAdapter, ValidationError

from decodiff_pipeline.autoencoder.config import AutoencoderTrainingConfig
from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.config import CorruptionConfig, DiscrepancyConfig
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.kedro_project import load_project
from decodiff_pipeline.monitoring.config import MonitoringConfig, ReferenceConfig
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.registry.config import PromotionConfig, RegistrationConfig, RollbackConfig
from decodiff_pipeline.visibility.config import VisibilityConfig

if TYPE_CHECKING:
    from decodiff_pipeline.kedro_project import Project

ROOT = Path(__file__).parents[1]
IN_MEMORY = {"promotion_judgement", "model_inputs"}
# Groups whose shipped values are the defaults that the documentation tells.
DEFAULTS = {
    "compute": ComputeConfig,
    "monitoring": MonitoringConfig,
    "monitoring_reference": ReferenceConfig,
    "promotion": PromotionConfig,
    "rollback": RollbackConfig,
}


@pytest.fixture(scope="module", params=["base", "mvtec", "visa"])
def project(request: pytest.FixtureRequest) -> Project:
    return load_project(ROOT, request.param)


def test_every_data_set_of_every_pipeline_is_in_the_catalog(project: Project) -> None:
    for name, pipeline in project.pipelines.items():
        named = {each for each in pipeline.datasets() if not each.startswith("params:")}
        assert named - IN_MEMORY <= set(project.catalog), name


def test_the_shipped_parameters_are_what_the_nodes_take(project: Project) -> None:
    models = TypeExtractor(dict(project.pipelines)).extract_types_from_pipelines()
    assert {"training", "evaluation", "registration", "visibility"} <= set(models)
    for name, model in models.items():
        found = TypeAdapter(model).validate_python(project.parameters[name])
        if name in DEFAULTS and project.environment is None:
            assert found == DEFAULTS[name](), name


@pytest.mark.parametrize(
    ("model", "wrong", "words"),
    [
        *((AutoencoderTrainingConfig, wrong, words) for wrong, words in [
            ({"sources": {"procedural": 1}, "crop_size": 36}, "multiple of 8"),
            ({"sources": {"procedural": 1}, "crop_size": 512, "image_size": 256}, "larger than"),
            ({"sources": {}}, "at least one share"),
            ({"sources": {"manifest": 0}}, "above 0"),
            ({"sources": {"internet": 1}}, "internet"),
            ({"learning_rat": 1}, "learning_rat"),
        ]),
        (ComputeConfig, {"processes": 0}, "processes"),
        (CorruptionConfig, {"max_mask_ratio": 1.5}, "max_mask_ratio"),
        *((DataConfig, wrong, words) for wrong, words in [
            ({"layout": "mvtech"}, "not a layout: use one of"),
            ({"layout": "mvtec", "categories": []}, "name each category once"),
            ({"layout": "mvtec", "val_fraction": 0.5, "calibration_fraction": 0.5},
             "train is the rest"),
            ({"layout": "mvtec", "val_fractoin": 0.1}, "Extra inputs are not permitted"),
            ({"layout": "mvtec", "exclude": "a/*.png"}, "make it a list; it is 'a/"),
            ({"layout": "mvtec", "exclude": [[7]]}, "7. is neither a pattern"),
        ]),
        *((DiscrepancyConfig, wrong, next(iter(wrong))) for wrong in [
            {"pixel_limit": 0.0}, {"latent_sigma": -1.0}, {"pixel_weight": 1.5},
        ]),
        *((EvaluationConfig, wrong, next(iter(wrong))) for wrong in [
            {"false_positive_rate": 0}, {"false_positive_rate": 1}, {"aupro_limit": 1.1},
            {"batch_size": 0}, {"batch_size": "many"}, {"protocol": "loose"},
            {"near_duplicate_bits": 257}, {"review_images": -1}, {"review_limit": 0},
            {"synthetic_images": -1}, {"resolution": "full"}, {"unknown": 1},
        ]),
        *((InferenceConfig, wrong, next(iter(wrong))) for wrong in [
            {"maps": "png8"}, {"batch_size": 0}, {"thresholds": {"mono": 2}}, {"folder": 1},
        ]),
        *((MonitoringConfig, wrong, next(iter(wrong))) for wrong in [
            {"false_alarm_rate": 0}, {"min_images": 1}, {"min_distance": 1}, {"sauce": "x"},
        ]),
        *((RegistrationConfig, wrong, next(iter(wrong))) for wrong in [
            {"model_name": "a/b"}, {"model_name": " "}, {"alias": "latest"}, {"alias": "v2"},
            {"alias": "two words"}, {"max_images": 0}, {"modelname": "x"},
        ]),
        (ValidationConfig, {"min_side": 64, "max_side": 32}, "min_side"),
        *((VisibilityConfig, wrong, "validation error") for wrong in [
            {"contrast": 33}, {"sizes": [2, 1]}, {"sizes": []}, {"contrasts": [0]}, {"images": 33},
        ]),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_name(
    model: Any, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValidationError, ConfigurationError), match=words):
        model(**wrong)
