"""The wiring of the registration pipeline: names in the catalog, parameters that validate."""

from __future__ import annotations

from pathlib import Path

import yaml

from decodiff_pipeline.registry.registration import METRICS_FILE, RECORD_FILE

CONF = Path(__file__).parents[2] / "conf" / "base"


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
