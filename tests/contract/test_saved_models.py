"""A model directory and a registered version of before score images as they did."""

from __future__ import annotations

import importlib
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from tests.contract.chain import FIXTURES

from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.registry.registration import identity_tags

VERSION = FIXTURES / "version"
PIPELINE = VERSION / "artifacts" / "pipeline"


def scored_paths(expected: dict[str, Any]) -> list[str]:
    return [path for path in expected["scores"] if "/test/" in path]


def test_a_model_directory_scores_as_before(expected: dict[str, Any]) -> None:
    paths = scored_paths(expected)
    model = DeCoDiffPipeline.from_pretrained(PIPELINE)
    model.set_progress_bar_config(disable=True)
    images = [Image.open(FIXTURES / "raw" / path) for path in paths]
    found = model(images, [path.split("/")[0] for path in paths])
    before = [expected["scores"][path] for path in paths]
    assert found.scores.tolist() == pytest.approx(before, abs=1e-5)


def test_a_registered_version_answers_as_before(expected: dict[str, Any]) -> None:
    import mlflow

    paths = scored_paths(expected)
    images = [(FIXTURES / "raw" / path).read_bytes() for path in paths]
    categories = [path.split("/")[0] for path in paths]
    rows = pd.DataFrame({"image": images, "category": categories})
    answer = mlflow.pyfunc.load_model(str(VERSION)).predict(rows, params={"map_bits": 0})
    before = [expected["scores"][path] for path in paths]
    assert answer["score"].tolist() == pytest.approx(before, abs=1e-5)
    thresholds = {
        name: entry["threshold"] for name, entry in expected["thresholds"]["categories"].items()
    }
    assert answer["threshold"].tolist() == [thresholds[name] for name in categories]
    assert set(answer["model_version"]) == {"contract/1"}
    assert set(answer["model_sha256"]) == {expected["tags"]["model_sha256"]}
    assert list(answer.columns) == [
        "category", "score", "threshold", "threshold_from", "decision", "map", "model_version",
        "model_sha256", "request_id",
    ]  # fmt: skip


def test_digests_of_a_version_are_what_they_were(
    expected: dict[str, Any], manifest: pd.DataFrame
) -> None:
    tags = identity_tags(PIPELINE, expected["thresholds"], manifest, {}, {})
    named = ("model_sha256", "thresholds_sha256", "data_digest", "autoencoder_digest")
    assert {name: tags[name] for name in named} == {name: expected["tags"][name] for name in named}


@pytest.mark.parametrize(
    "path",
    [
        # written into model_index.json and the configuration of a saved model
        "deco.pipeline.DeCoDiffPipeline",
        "deco.unet.DeCoDiffUNet",
        "deco.scheduler.DeCoDiffScheduler",
        "deco.reference.DiscrepancyReference",
        # imported by the copies of served_model.py that are logged with versions
        "errors.ImageError",
        "errors.ModelError",
        "evaluation.monitoring.reference.scores_sha256",
        "registry.request_images.image_bytes",
        "registry.request_log.RequestLog",
        "registry.scorer.Scorer",
        "registry.served_version.served_version",
        # named in the conf/ of a project
        "datasets.DiffusersDataset",
        "datasets.HandleDataset",
        "datasets.appended_lines.AppendedLinesDataset",
        "datasets.champion.ChampionModelDataset",
        "datasets.provenance.ProvenanceDataset",
        "datasets.reference.ReferenceEvaluationDataset",
        "datasets.siblings.SiblingRunsDataset",
    ],
)
def test_stored_names_can_be_imported(path: str) -> None:
    module, name = f"decodiff_pipeline.{path}".rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name)


def test_every_class_in_the_shipped_catalog_can_be_imported() -> None:
    import yaml
    from tests.contract.chain import CONF

    catalog = yaml.safe_load((CONF / "catalog.yml").read_text())
    named = {
        value
        for entry in catalog.values()
        for key, value in entry.items()
        if key in {"type", "handle", "model"} and value.startswith("decodiff_pipeline.")
    }
    for path in named:
        module, name = path.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), path
