"""The wiring of the registration pipeline: names in the catalog, parameters that validate."""

from __future__ import annotations

from pathlib import Path

import yaml

from decodiff_pipeline.pipelines.registration import create_pipeline
from decodiff_pipeline.registry.config import RegistrationConfig
from decodiff_pipeline.registry.registration import METRICS_FILE, RECORD_FILE

CONF = Path(__file__).parents[2] / "conf" / "base"


def test_inputs_and_outputs_are_in_the_catalog() -> None:
    catalog = yaml.safe_load((CONF / "catalog.yml").read_text(encoding="utf-8"))
    pipeline = create_pipeline()
    data = {name for name in pipeline.datasets() if not name.startswith("params:")}
    assert data <= set(catalog)
    assert pipeline.all_outputs() == {"registration"}
    # The example and the digests come from validated rows only.
    assert "validated_manifest" in pipeline.inputs()


def test_the_champion_is_looked_for_under_the_name_that_models_are_registered_by() -> None:
    catalog = yaml.safe_load((CONF / "catalog.yml").read_text(encoding="utf-8"))
    parameters = yaml.safe_load((CONF / "parameters_registration.yml").read_text(encoding="utf-8"))
    references = catalog["earlier_evaluations"]
    assert references["model_name"] == parameters["registration"]["model_name"]
    files = (Path(references["metrics"]).name, Path(references["filepath"]).name)
    assert files == (METRICS_FILE, RECORD_FILE)
    assert references["metrics"] == catalog["metrics"]["filepath"]
    assert references["filepath"] == catalog["evaluation_record"]["filepath"]
    assert catalog["seed_replicates"]["filename"] == METRICS_FILE


def test_the_shipped_parameters_are_the_documented_defaults() -> None:
    text = (CONF / "parameters_registration.yml").read_text(encoding="utf-8")
    shipped = yaml.safe_load(text)["registration"]
    assert shipped.pop("dataset") == "${globals:dataset}"
    assert shipped.pop("model_name") == "decodiff-${globals:dataset}"
    assert RegistrationConfig.model_validate(shipped) == RegistrationConfig()
