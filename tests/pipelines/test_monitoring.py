"""From a model's reference to an answer on recent images, with a small real model."""

from __future__ import annotations

import json
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
from tests.models import small_pipeline

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.errors import DataError, DriftDetected
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.monitoring.config import MonitoringConfig, ReferenceConfig
from decodiff_pipeline.monitoring.judgement import judge
from decodiff_pipeline.monitoring.reference import ReferenceFile, make_reference
from decodiff_pipeline.monitoring.source import RecentSource
from decodiff_pipeline.pipelines.monitoring import create_pipeline

CONF = Path(__file__).parents[2] / "conf" / "base"
CATEGORIES = ("mono", "poly")
HOSTILE = "<img src=x onerror=alert(1)>.png"


def part(seed: int, *, light: float = 1.0) -> Image.Image:
    """A part seen by a camera: a bright disc on dark noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :48]
    disc = np.hypot(rows - 24 - random.normal(0, 1), columns - 24) < 14 + random.normal(0, 1)
    grey = 40 + 100 * disc + random.normal(0, 6, (48, 48)) + random.normal(0, 4)
    return Image.fromarray((light * grey).clip(0, 255).astype(np.uint8))


def save(folder: Path, seeds: range, **changes: float) -> None:
    """Saves parts as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        part(seed, **changes).save(folder / f"{seed:05d}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model folder with its reference: 40 train, 30 val and 30 calibration images a category."""
    root = tmp_path_factory.mktemp("monitoring")
    rows = []
    for number, category in enumerate(CATEGORIES):
        save(root / "raw" / category, range(1000 * number, 1000 * number + 100))
        for i in range(100):
            path = f"{category}/{1000 * number + i:05d}.png"
            split = "train" if i < 40 else "val" if i < 70 else "calibration"
            rows.append({"category": category, "split": split, "label": "good", "path": path,
                         "sha256": f"{37 * i % 100:064d}"})  # fmt: skip
    manifest, images = pd.DataFrame(rows), ImageFolder(root / "raw")
    model, store = small_pipeline(CATEGORIES), PredictionStore(root / "predictions")
    score_images(model, manifest, images, store, EvaluationConfig(batch_size=32))
    reference = make_reference(model, manifest, images, store, ReferenceConfig(components=4))
    path = root / "model" / "monitoring_reference.json"
    path.parent.mkdir()
    path.write_text(json.dumps(reference))
    return SimpleNamespace(model=model, reference=reference, path=path)


def run(
    world: SimpleNamespace, source: Path, output: Path, **parameters: Any
) -> tuple[dict[str, Any], str]:
    """Runs the pipeline with the outputs of the shipped catalog; returns answer and page."""
    shipped = yaml.safe_load((CONF / "catalog.yml").read_text())
    names = ("recent_features", "monitoring", "monitoring_report")
    outputs = {name: shipped[name] | {"filepath": str(output / name)} for name in names}
    catalog = DataCatalog.from_config(outputs)
    inputs = {
        "monitored_model": world.model,
        "monitored_reference": ReferenceFile(world.path),
        "recent_images": RecentSource(source),
        "params:monitoring": MonitoringConfig(**parameters),
        "params:data": DataConfig(layout="folder"),
    }
    pipeline = create_pipeline()
    assert pipeline.inputs() == set(inputs)
    assert {name for name in inputs if not name.startswith("params:")} | set(names) <= set(shipped)
    for name, value in inputs.items():
        catalog[name] = MemoryDataset(value, copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    return json.loads((output / "monitoring").read_text()), (
        output / "monitoring_report"
    ).read_text()


def test_nothing_new_is_no_alarm(world: SimpleNamespace, tmp_path: Path) -> None:
    save(tmp_path / "recent" / "mono", range(5000, 5040))
    save(tmp_path / "recent" / "poly", range(5040, 5080))
    answer, page = run(world, tmp_path / "recent", tmp_path, fail_on_drift=True)
    assert answer["retrain"] is False
    assert answer["why"] == ["Nothing differs from the reference."]
    assert {one["status"] for one in answer["categories"].values()} == {"no drift"}
    tested = answer["categories"]["mono"]["features"]
    assert {"score", "latent_distance", "latent_4", "brightness", "sharpness"} <= set(tested)
    assert "latent_5" not in tested
    assert tested["score"]["n_reference"] == 30  # of calibration: val made the model's units
    assert tested["brightness"]["n_reference"] == 60
    assert "no drift found" in page


def test_more_light_is_an_alarm_that_names_category_and_cause(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    save(tmp_path / "recent" / "mono", range(5000, 5040))
    save(tmp_path / "recent" / "poly", range(5040, 5080), light=1.2)
    with pytest.raises(DriftDetected, match=r"monitoring\.fail_on_drift.*poly.*camera"):
        run(world, tmp_path / "recent", tmp_path, fail_on_drift=True)
    answer = json.loads((tmp_path / "monitoring").read_text())  # written before the run failed
    assert answer["retrain"] is True
    assert answer["categories"]["mono"]["status"] == "no drift"
    brightness = answer["categories"]["poly"]["features"]["brightness"]
    assert brightness["drift"]
    assert brightness["shift"] > 2
    page = (tmp_path / "monitoring_report").read_text()
    assert page.count("data:image/png;base64,") == 12
    assert run(world, tmp_path / "recent", tmp_path)[0]["retrain"] is True


def test_few_unreadable_unknown_and_hostile_images_are_told_and_not_fatal(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    recent = tmp_path / "recent"
    save(recent / "mono", range(5000, 5030))
    save(recent / "poly", range(5040, 5045))
    save(recent / "<b>gadget", range(2))
    (recent / "mono" / "broken.png").write_bytes(b"no image")
    part(1, light=3).save(recent / "mono" / HOSTILE)
    answer, page = run(world, recent, tmp_path)
    assert answer["retrain"] is False
    assert answer["categories"]["poly"] | {"features": {}} == {
        "status": "too few to say",
        "images": 5,
        "unreadable": 0,
        "reference_images": 60,
        "features": {},
    }
    assert answer["unknown_categories"] == {"<b>gadget": 2}
    assert [one["path"] for one in answer["unreadable"]] == ["mono/broken.png"]
    assert answer["unusual"][0]["path"] == f"mono/{HOSTILE}"
    assert len(answer["why"]) == 3
    assert "<b>" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_log_of_scores_is_tested_on_scores_alone(world: SimpleNamespace, tmp_path: Path) -> None:
    known = np.array(world.reference["categories"]["mono"]["values"]["score"])
    random = np.random.default_rng(0)
    log = tmp_path / "requests.csv"
    scores = random.choice(known, 50) + random.normal(0, 1e-9, 50)
    pd.DataFrame({"category": "mono", "score": scores, "latency": 1}).to_csv(log, index=False)
    answer, _ = run(world, log, tmp_path)
    assert answer["retrain"] is False
    assert set(answer["categories"]["mono"]["features"]) == {"score"}
    pd.DataFrame({"category": "mono", "score": scores * 1.5 + 0.1}).to_csv(log, index=False)
    assert run(world, log, tmp_path)[0]["retrain"] is True


def test_a_table_of_paths_and_one_category_for_all(world: SimpleNamespace, tmp_path: Path) -> None:
    save(tmp_path / "recent", range(5000, 5040))
    paths = sorted(path.name for path in (tmp_path / "recent").iterdir())
    table = tmp_path / "recent" / "list.parquet"
    pd.DataFrame({"path": paths, "category": "poly"}).to_parquet(table)
    listed, _ = run(world, table, tmp_path)
    folder, _ = run(world, tmp_path / "recent", tmp_path, category="poly")
    assert listed["categories"]["poly"]["images"] == 40
    assert listed["categories"] == folder["categories"]


def test_what_is_wrong_with_the_source_is_said(world: SimpleNamespace, tmp_path: Path) -> None:
    def refused(sentence: str, **parameters: Any) -> None:
        with pytest.raises(DataError, match=sentence):
            run(world, tmp_path / "recent", tmp_path, **parameters)

    refused("does not exist")
    (tmp_path / "recent").mkdir()
    refused("is empty")
    save(tmp_path / "recent", range(2))
    refused("monitoring.category")
    refused("mono, poly.*'gadget'", category="gadget")


def test_a_table_cannot_lead_out_of_its_folder(world: SimpleNamespace, tmp_path: Path) -> None:
    save(tmp_path, range(1))
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "recent.csv"
    table.write_text("category,path\nmono,../00000.png\n")
    answer, _ = run(world, table, tmp_path)
    assert "leaves the data folder" in answer["unreadable"][0]["error"]


def test_a_missing_reference_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kedro run --pipelines evaluation"):
        ReferenceFile(tmp_path / "monitoring_reference.json").load()


def test_the_reference_of_another_model_is_refused(world: SimpleNamespace, tmp_path: Path) -> None:
    import torch

    save(tmp_path / "recent" / "mono", range(3))
    other = small_pipeline(CATEGORIES)
    with torch.no_grad():
        next(other.unet.parameters()).add_(1)
    with pytest.raises(DataError, match="network_sha256"):
        run(SimpleNamespace(model=other, path=world.path), tmp_path / "recent", tmp_path)


def test_the_level_holds_over_all_features_and_categories() -> None:
    random = np.random.default_rng(0)
    names = [f"f{i}" for i in range(12)]
    alarms = 0
    for _ in range(100):
        values = {name: random.normal(size=80).tolist() for name in names}
        reference = {"model": {}, "categories": {"a": {"values": values}, "b": {"values": values}}}
        recent = pd.DataFrame(random.normal(size=(100, 12)), columns=names)
        recent = recent.assign(category=["a", "b"] * 50, path="x", error="", known=True)
        alarms += judge(reference, recent, MonitoringConfig(false_alarm_rate=0.05))["retrain"]
    assert alarms <= 10  # of 100 at 5 %: more have a chance of 1 %


def test_a_small_share_of_defects_is_no_alarm_however_many_images() -> None:
    random = np.random.default_rng(0)
    reference = {"model": {}, "categories": {"a": {"values": {"score": random.normal(size=500)}}}}
    scores = random.normal(size=20_000)
    scores[:1400] += 10
    recent = pd.DataFrame(
        {"score": scores, "category": "a", "path": "", "error": "", "known": True}
    )
    tested = judge(reference, recent, MonitoringConfig())["categories"]["a"]["features"]["score"]
    assert not tested["drift"]
    assert judge(reference, recent, MonitoringConfig(min_distance=0))["retrain"]
