"""Latents, trainings and evaluations of before are found again, gone on with and repeated."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tests.contract.chain import FIXTURES, parameters, run

from decodiff_pipeline.data.synthetic_defects import VERSION, synthetic_defect

if TYPE_CHECKING:
    from pathlib import Path

    from kedro.io import DataCatalog

AUTOENCODER = FIXTURES / "autoencoder"


def run_nodes(stage: str, folder: Path, *names: str, **training: Any) -> DataCatalog:
    """Runs a pipeline, or some of its nodes, on the stored data set."""
    pipeline = import_module(f"decodiff_pipeline.pipelines.{stage}").create_pipeline()
    if names:
        pipeline = pipeline.only_nodes(*names)
    return run(pipeline, folder, parameters(AUTOENCODER, **training))


def test_images_stay_in_their_splits(tmp_path: Path, expected: dict[str, Any]) -> None:
    manifest = run_nodes("data_validation", tmp_path, "build_manifest").load("manifest")
    rows = manifest[["path", "split", "label", "sha256"]].to_dict("records")
    assert rows == expected["manifest"]
    assert {*expected["columns"]["validated_manifest"]} <= {*manifest.columns}


def test_cached_latents_have_the_keys_that_are_asked_for(project: Path) -> None:
    latents = project / "data" / "04_feature" / "contract" / "latents"
    before = {file.name: file.read_bytes() for file in latents.iterdir()}
    run_nodes("latent_caching", project)
    assert {file.name: file.read_bytes() for file in latents.iterdir()} == before


def test_synthetic_defects_are_drawn_as_before() -> None:
    """A sheet of good image, image with the defect and mask, eight times."""
    assert VERSION == 2
    sheet = np.asarray(Image.open(FIXTURES / "synthetic_defects.png")).astype(int)
    good, drawn, masks = np.split(sheet, 3)
    for number, (before, image, mask) in enumerate(
        zip(*(np.split(part, 8, axis=1) for part in (good, drawn, masks)), strict=True)
    ):
        found, found_mask = synthetic_defect(before.astype(np.uint8), "contract", number)
        # The last bit depends on the processor.
        assert abs(found.astype(int) - image).max() <= 1
        assert (found_mask != (mask[..., 0] > 0)).sum() <= 1


def checkpoint(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    stem = folder / "data/06_models/contract/checkpoints" / f"checkpoint-{step:08d}"
    return json.loads(stem.with_suffix(".json").read_text()), load_file(f"{stem}.safetensors")


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    interrupted: Path, expected: dict[str, Any]
) -> None:
    begun, tensors = checkpoint(interrupted, 3)
    log = run_nodes("training", interrupted, "train_network").load("training_log")
    assert log[:3] == begun["log"]
    resumed, resumed_tensors = checkpoint(interrupted, 6)
    assert begun.keys() <= resumed.keys()
    assert resumed["identity"] == begun["identity"]
    assert resumed["start"] == begun["start"]

    run_nodes("training", interrupted, "train_network", resume="never")
    whole, whole_tensors = checkpoint(interrupted, 6)
    assert whole["identity"] == begun["identity"]
    assert tensors.keys() == resumed_tensors.keys() == whole_tensors.keys()
    losses = [row["loss"] for row in expected["training_log"]]
    for done in (resumed, whole):
        assert [row["loss"] for row in done["log"]] == pytest.approx(losses, rel=1e-4)
        assert all(
            row.keys() <= now.keys()
            for row, now in zip(expected["training_log"], done["log"], strict=True)
        )
    # Where a gradient is nothing but rounding, Adam takes whole steps of it, and the first half of
    # the training was computed by another processor.
    alike = [
        np.isclose(resumed_tensors[name], tensor, rtol=1e-2, atol=1e-4).flatten()
        for name, tensor in whole_tensors.items()
    ]
    assert np.concatenate(alike).mean() > 0.95


def flat(values: Any, name: str = "") -> dict[str, Any]:
    """Leaves by their path, such as ``.mean.image_auroc``."""
    if isinstance(values, dict | list):
        parts = values.items() if isinstance(values, dict) else enumerate(values)
        return {k: v for key, part in parts for k, v in flat(part, f"{name}.{key}").items()}
    return {name: values}


def test_an_evaluation_measures_what_it_did(interrupted: Path, expected: dict[str, Any]) -> None:
    model = interrupted / "data" / "06_models" / "contract" / "pipeline"
    model.symlink_to(FIXTURES / "version" / "artifacts" / "pipeline")
    wanted = (
        "score_images", "score_baseline", "fit_thresholds", "measure_baselines", "compute_metrics",
        "measure_synthetic_localisation", "review_training_images", "compare_models", "tabulate",
    )  # fmt: skip
    catalog = run_nodes("evaluation", interrupted, *wanted)
    record = catalog.load("evaluation_record")
    scores = dict(zip(record["path"], record["score"], strict=True))
    assert scores == pytest.approx(expected["scores"], abs=1e-5)
    for name in ("evaluation_record", "scores_table"):
        assert {*expected["columns"][name]} <= {*catalog.load(name).columns}
    for name in ("metrics", "thresholds", "training_review", "synthetic_metrics"):
        found, before = flat(catalog.load(name)), flat(expected[name])
        assert before.keys() <= found.keys()
        for key, value in before.items():
            numeric = isinstance(value, float)
            assert found[key] == (pytest.approx(value, abs=1e-4) if numeric else value), key
