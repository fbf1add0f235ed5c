"""The evaluation pipeline, from images and a stand-in model to the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.datasets import DiffusersDataset
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline, Discrepancies
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.evaluation.comparison import EarlierEvaluation
from decodiff_pipeline.evaluation.config import EvaluationConfig, Protocol
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.pipelines.evaluation import create_pipeline
from decodiff_pipeline.reporting.summary import render_table
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

if TYPE_CHECKING:
    from decodiff_pipeline.deco.weights import AutoencoderConfig

CONF = Path(__file__).parents[2] / "conf"
GEOMETRY = PreprocessConfig(resize=32, image_size=32)


Groups = tuple[tuple[str, str, int], ...]
EVERYTHING: Groups = (
    ("train", "good", 4), ("calibration", "good", 3), ("test", "good", 3), ("test", "defective", 3),
)  # fmt: skip


class GreyModel(DeCoDiffPipeline):
    """Its map is the grey value; the rest is a real pipeline's."""

    def discrepancies(self, images: torch.Tensor, *_: Any) -> Discrepancies:
        return Discrepancies((images.mean(1) + 1) / 2, torch.zeros(len(images), 4, 4), images)


@pytest.fixture
def model(tiny_autoencoder: AutoencoderConfig) -> GreyModel:
    unet = DeCoDiffUNet(["plate"], 4, base_channels=8, num_heads=1, context_dim=8, norm_groups=4)
    return GreyModel(
        load_autoencoder(tiny_autoencoder),
        unet,
        DeCoDiffScheduler(),
        preprocess=asdict(GEOMETRY),
        discrepancy={"pixel_limit": 1, "pixel_sigma": 0, "fusion": "pixel"},
    )


def make_manifest(root: Path, groups: Groups = EVERYTHING) -> pd.DataFrame:
    rows = []
    for split, label, count in groups:
        for _ in range(count):
            name = f"{len(rows):02d}.png"
            pixels = np.random.default_rng(len(rows)).integers(0, 40, (32, 32), dtype=np.uint8)
            pixels[4:12, 4:12] += np.uint8(150 * (label == "defective"))
            Image.fromarray(pixels).save(root / name)
            rows.append({"category": "plate", "split": split, "label": label, "path": name,
                         "defect_type": label, "sha256": name, "mask_path": None})  # fmt: skip
    return pd.DataFrame(rows)


class NoReferences:
    """Finds nothing."""

    def load(self, compare_with: str | None) -> EarlierEvaluation:
        return EarlierEvaluation(str(compare_with), missing=f"{compare_with} has no metrics.json")


def outputs(root: Path) -> dict[str, Any]:
    """The pipeline's outputs as `conf/base/catalog.yml` has them, in another folder."""
    catalog = yaml.safe_load((CONF / "base" / "catalog.yml").read_text())
    found = {name: catalog[name] for name in sorted(create_pipeline().all_outputs())}
    for name, entry in found.items():
        entry["path" if name == "figures" else "filepath"] = str(root / name)
    return found


def run(root: Path, model: GreyModel, manifest: pd.DataFrame, protocol: Protocol) -> None:
    """Runs the pipeline; its outputs are below the root, by their names in the catalog."""
    inputs = {
        "decodiff_model": model,
        "validated_manifest": manifest,
        "raw_images": ImageFolder(root),
        "prediction_store": PredictionStore(root / "predictions"),
        "baseline_store": PredictionStore(root / "baseline_predictions"),
        "params:evaluation": EvaluationConfig(batch_size=2, protocol=protocol, compare_with="v1"),
        "params:compute": ComputeConfig(processes=1),
        "params:preprocessing": GEOMETRY,
        "params:training": TrainingConfig(steps=1, seed=1),
        "params:scoring": ScoringConfig(),
        "seed_replicates": {
            seed: {"categories": {"plate": {"image_auroc": auroc}}}
            for seed, auroc in ((0, 0.5), (1, 0.1))
        },
        "provenance": {
            "git_commit": "abc",
            "git_dirty": False,
            "dvc_revision": None,
            "mlflow_run_id": "f00d",
        },
        "earlier_evaluations": NoReferences(),
    }
    catalog = DataCatalog.from_config(outputs(root))
    for name, value in inputs.items():
        catalog[name] = MemoryDataset(value, copy_mode="assign")
    # Needs an autoencoder, which the stand-in has not: see test_monitoring.py.
    pipeline = create_pipeline() - create_pipeline().only_nodes("make_monitoring_reference")
    assert pipeline.inputs() == set(inputs)
    SequentialRunner().run(pipeline, catalog)


def content(path: Path) -> Any:
    """A JSON file, in which NaN and infinity are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_model_is_loaded_once_for_all_nodes(tiny_model: Path) -> None:
    name = f"{DeCoDiffPipeline.__module__}.{DeCoDiffPipeline.__qualname__}"
    dataset = DiffusersDataset(model=name, filepath=str(tiny_model))
    loaded = dataset.load()
    assert dataset.load() is loaded
    dataset.release()
    assert dataset.load() is not loaded


@pytest.mark.parametrize("protocol", ["strict", "released"])
def test_the_whole_pipeline(tmp_path: Path, model: GreyModel, protocol: Protocol) -> None:
    run(tmp_path, model, make_manifest(tmp_path), protocol)
    metrics = json.loads((tmp_path / "metrics").read_text())
    assert "f00d" not in json.dumps(metrics)
    key = content(tmp_path / "evaluation_run")
    assert key["mlflow_run_id"] == "f00d"
    assert set(key["plate"]) == {"image_auroc", "false_positive_rate", "false_negative_rate"}
    assert key["plate"].items() <= metrics["categories"]["plate"].items()
    assert metrics["categories"]["plate"]["image_auroc"] == 1
    assert metrics["categories"]["plate"]["pixel_ap"] is None
    assert metrics["baseline"]["pca"]["plate"]["n_fitted"] == 7
    thresholds = json.loads((tmp_path / "thresholds").read_text())
    assert thresholds["categories"]["plate"]["n_calibration"] == 3
    with Image.open(tmp_path / "figures" / "plate.png") as figure:
        assert figure.width > 400
    assert metrics["seeds"]["plate"]["image_auroc"]["n"] == 2
    assert metrics["seeds"]["plate"]["image_auroc"]["mean"] == 0.75
    summary = (tmp_path / "evaluation_summary").read_text()
    assert "v1 has no metrics.json" in summary
    assert "git_commit abc" in summary
    assert json.loads((tmp_path / "comparison").read_text())["reference"] == "v1"
    assert len(json.loads((tmp_path / "plot_image_roc").read_text())) == 3
    assert len(json.loads((tmp_path / "plot_confusion").read_text())) == 6
    nothing = {"category": None, "fpr": None, "overlap": None}
    assert json.loads((tmp_path / "plot_pro").read_text()) == [nothing]
    table = pd.read_csv(tmp_path / "scores_table")
    assert set(table["predicted"][table["label"] == "defective"]) == {"defective"}
    assert pd.read_csv(tmp_path / "metrics_table")["category"].tolist() == ["plate", "mean"]
    page = (tmp_path / "report").read_text()
    assert "plate" in page
    assert f"protocol <strong>{protocol}</strong>" in page
    baseline = json.loads((tmp_path / "baseline_metrics").read_text())
    assert {metrics["protocol"], baseline["protocol"]} == {protocol}

    assert baseline["autoencoder"]["plate"]["image_auroc"] is not None
    scores = pd.read_parquet(tmp_path / "baseline_scores")
    assert scores[["pca_score", "autoencoder_score"]].notna().all(axis=None)
    assert len(scores) == 6
    review = content(tmp_path / "training_review")["plate"]
    assert [entry["path"] for entry in review] != []
    assert all(entry["path"] in {"00.png", "01.png", "02.png", "03.png"} for entry in review)
    synthetic = content(tmp_path / "synthetic_metrics")["plate"]
    assert (synthetic["n"], synthetic["split"]) == (3, "test")
    assert 0 <= synthetic["pixel_auroc"] <= 1


TRAIN, CALIBRATION, GOOD, BAD = ((group,) for group in EVERYTHING)


@pytest.mark.parametrize(
    ("groups", "protocol"),
    [
        pytest.param(TRAIN + CALIBRATION + GOOD, "strict", id="no defects"),
        pytest.param(TRAIN + CALIBRATION + BAD, "released", id="no good test images"),
        pytest.param(TRAIN + GOOD, "strict", id="neither calibration images nor defects"),
        pytest.param(TRAIN + CALIBRATION, "released", id="no test images"),
        pytest.param(GOOD + BAD, "strict", id="nothing but test images"),
        pytest.param((("test", "good", 1),), "released", id="a single good image"),
        pytest.param((("test", "defective", 1),), "strict", id="a single defective image"),
        pytest.param((("calibration", "good", 1),), "strict", id="a single calibration image"),
        pytest.param((*TRAIN, *GOOD, ("test", "uncertain", 2)), "strict", id="uncertain ones"),
    ],
)
def test_what_cannot_be_measured_is_null(
    tmp_path: Path, model: GreyModel, groups: Groups, protocol: Protocol
) -> None:
    run(tmp_path, model, make_manifest(tmp_path, groups), protocol)
    labels = {label for split, label, _ in groups if split == "test"}
    both = {"good", "defective"} <= labels
    row = content(tmp_path / "metrics")["categories"]["plate"]
    baseline = content(tmp_path / "baseline_metrics")
    assert (row["image_auroc"] is not None) == both
    assert (baseline["autoencoder"]["plate"]["image_auroc"] is not None) == both
    assert (baseline["pca"]["plate"]["image_auroc"] is not None) == (both and groups[0] in TRAIN)
    assert row["pixel_ap"] is baseline["autoencoder"]["plate"]["pixel_ap"] is None
    threshold = content(tmp_path / "thresholds")["categories"]["plate"]["threshold"]
    calibrated = any(split == "calibration" for split, _, _ in groups)
    assert (threshold is not None) == calibrated
    review = content(tmp_path / "training_review").get("plate", [])
    assert len(review) == (4 if groups[0] in TRAIN else 0)
    assert all((entry["p_value"] is not None) == calibrated for entry in review)
    synthetic = content(tmp_path / "synthetic_metrics")["plate"]
    usable = "good" in labels or calibrated
    assert (synthetic["n"] > 0) == usable
    assert (synthetic["pixel_ap"] is not None) == usable
    assert "plate" in (tmp_path / "report").read_text()
    assert "plate" in render_table(content(tmp_path / "metrics"))
