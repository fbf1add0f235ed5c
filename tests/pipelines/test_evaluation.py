"""The evaluation pipeline, from images and a stand-in model to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image
from pydantic import ValidationError

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square
from decodiff_pipeline.evaluation.config import EvaluationConfig, Protocol
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.pipelines.evaluation import create_pipeline

CONF = Path(__file__).parents[2] / "conf"
GEOMETRY = PreprocessConfig(resize=32, image_size=32)


class GreyModel:
    """Its map is the grey value."""

    categories = ("plate",)
    preprocessing = GEOMETRY

    def __call__(self, images: list[Image.Image], **_: Any) -> SimpleNamespace:
        squares = np.stack([to_square(image, GEOMETRY) for image in images])
        maps = squares.mean(-1, dtype=np.float32) / 255
        return SimpleNamespace(anomaly_maps=maps, scores=maps.max((1, 2)), reconstructions=squares)


def make_manifest(root: Path) -> pd.DataFrame:
    rows = []
    groups = [("train", "good", 4), ("calibration", "good", 3), ("test", "good", 3)]
    for split, label, count in [*groups, ("test", "defective", 3)]:
        for _ in range(count):
            name = f"{len(rows):02d}.png"
            pixels = np.random.default_rng(len(rows)).integers(0, 40, (32, 32), dtype=np.uint8)
            pixels[4:12, 4:12] += np.uint8(150 * (label == "defective"))
            Image.fromarray(pixels).save(root / name)
            rows.append({"category": "plate", "split": split, "label": label, "path": name,
                         "defect_type": label, "sha256": name, "mask_path": None})  # fmt: skip
    return pd.DataFrame(rows)


def outputs(root: Path) -> dict[str, Any]:
    """The pipeline's outputs as `conf/base/catalog.yml` has them, in another folder."""
    catalog = yaml.safe_load((CONF / "base" / "catalog.yml").read_text())
    names = ("predictions", "thresholds", "baseline_metrics", "metrics", "figures", "report")
    found = {name: catalog[name] for name in names}
    for name, entry in found.items():
        entry["path" if name == "figures" else "filepath"] = str(root / name)
    return found


@pytest.mark.parametrize("protocol", ["strict", "released"])
def test_the_whole_pipeline(tmp_path: Path, protocol: Protocol) -> None:
    inputs = {
        "decodiff_model": GreyModel(),
        "validated_manifest": make_manifest(tmp_path),
        "raw_images": ImageFolder(tmp_path),
        "prediction_store": PredictionStore(tmp_path / "predictions"),
        "params:evaluation": EvaluationConfig(batch_size=2, protocol=protocol),
        "params:preprocessing": GEOMETRY,
    }
    catalog = DataCatalog.from_config(outputs(tmp_path))
    for name, value in inputs.items():
        catalog[name] = MemoryDataset(value, copy_mode="assign")
    pipeline = create_pipeline()
    assert pipeline.inputs() == set(inputs)
    SequentialRunner().run(pipeline, catalog)
    metrics = json.loads((tmp_path / "metrics").read_text())
    assert metrics["categories"]["plate"]["image_auroc"] == 1
    assert metrics["categories"]["plate"]["pixel_ap"] is None
    assert metrics["baseline"]["pca"]["plate"]["n_fitted"] == 7
    thresholds = json.loads((tmp_path / "thresholds").read_text())
    assert thresholds["categories"]["plate"]["n_calibration"] == 3
    with Image.open(tmp_path / "figures" / "plate.png") as figure:
        assert figure.width > 400
    page = (tmp_path / "report").read_text()
    assert "plate" in page
    assert f"protocol <strong>{protocol}</strong>" in page
    baseline = json.loads((tmp_path / "baseline_metrics").read_text())
    assert {metrics["protocol"], baseline["protocol"]} == {protocol}


def test_node_names() -> None:
    assert {node.name for node in create_pipeline().nodes} == {
        "score_images",
        "fit_thresholds",
        "fit_pca_baseline",
        "compute_metrics",
        "draw_report",
    }


@pytest.mark.parametrize("path", sorted(CONF.glob("*/parameters_evaluation.yml")))
def test_the_shipped_parameters_are_valid(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert set(content) == {"evaluation"}
    EvaluationConfig(**content["evaluation"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_positive_rate": 0},
        {"false_positive_rate": 1},
        {"aupro_limit": 0},
        {"aupro_limit": 1.1},
        {"batch_size": 0},
        {"batch_size": "many"},
        {"protocol": "loose"},
        {"unknown": 1},
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        EvaluationConfig(**wrong)


def test_the_pipeline_imports_nothing_heavy() -> None:
    code = (
        "import sys, decodiff_pipeline.pipelines.evaluation; "
        "print([m for m in ('torch', 'diffusers', 'mlflow', 'sklearn', 'matplotlib', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
