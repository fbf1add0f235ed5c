"""Several processes score as one does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.models import small_pipeline

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.errors import ComputeError, DataError, ImageError
from decodiff_pipeline.evaluation import scoring
from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.evaluation.training_review import review_training_images

if TYPE_CHECKING:
    from tests.evaluation.conftest import World

    from decodiff_pipeline.compute.group import Group
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

NAMES = ("odd/../$name", "plate")
CONFIG = EvaluationConfig(batch_size=4, review_images=3)
TWO = ComputeConfig(processes=2, threads=1)
WORK_FOLDER = "DECODIFF_TEST_WORK_FOLDER"


def score_rank(content: str, group: Group) -> list[str]:
    """What the processes of the killed run do: one of them dies once the other is done."""
    if group.rank == 1:
        folder = Path(os.environ[WORK_FOLDER])
        while not list(folder.glob("0*")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return scoring.score_rank(content, group)


@pytest.fixture
def parts(world: World) -> World:
    """Two categories whose rows alternate in the manifest, with images of several sizes."""
    for name in NAMES * 2:
        world.add(name, "train", "good", 3).add(name, "calibration", "good", 2)
        world.add(name, "test", "good", 2).add(name, "test", "defective", 2)
    return world


def scored(
    world: World, name: str, model: DeCoDiffPipeline, compute: ComputeConfig
) -> PredictionStore:
    store = PredictionStore(world.images.path.parent / name)
    score_images(model, world.manifest, world.images, store, CONFIG, compute)
    assert not store.work_folder.exists()
    return store


def assert_the_same(one: PredictionStore, other: PredictionStore) -> None:
    index, found = one.index(), other.index()
    columns = ["path", "category", "split", "label", "row"]
    assert index[columns].equals(found[columns])
    np.testing.assert_allclose(found["score"], index["score"], atol=1e-5)
    for category in NAMES:
        for mine, yours in ((one.maps, other.maps), (one.reconstructions, other.reconstructions)):
            assert len(mine(category)) == len(yours(category)) == 12
            for before, after in zip(mine(category), yours(category), strict=True):
                np.testing.assert_allclose(before.astype(float), after, atol=1e-5)


def test_two_processes_score_as_one_and_go_on_after_a_kill(
    parts: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, one = small_pipeline(NAMES).for_inference(), ComputeConfig(processes=1, threads=1)
    expected = scored(parts, "one", model, one)
    store = PredictionStore(parts.images.path.parent / "two")
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv(WORK_FOLDER, str(store.work_folder))
    monkeypatch.setattr(scoring, "__name__", __name__)
    with pytest.raises(ComputeError, match="rank 1 of 2 processes was ended by SIGKILL"):
        scored(parts, "two", model, TWO)
    monkeypatch.undo()
    kept = [part for part in store.work_folder.glob("0*")]
    assert [part.name[:5] for part in kept] == ["00000"]
    inode = next(kept[0].glob("*.npy")).stat().st_ino
    assert_the_same(expected, scored(parts, "two", model, TWO))
    assert inode in {file.stat().st_ino for file in (store.path / "00000").iterdir()}


def test_a_second_run_is_refused(parts: World) -> None:
    store = PredictionStore(parts.images.path.parent / "predictions")
    with store.locked(), pytest.raises(DataError, match=r"another run is scoring into .*wait"):
        scored(parts, "predictions", small_pipeline(NAMES), ComputeConfig(processes=1))


@pytest.mark.slow
def test_baseline_and_review_are_divided_too(parts: World) -> None:
    model, one = small_pipeline(NAMES).for_inference(), ComputeConfig(processes=1, threads=1)
    expected = scored(parts, "one", model, one)
    baseline = AutoencoderBaseline.of(model)
    alone = scored(parts, "alone", baseline, one)
    assert_the_same(alone, scored(parts, "both", baseline, TWO))
    reviews = [
        review_training_images(model, parts.manifest, parts.images, expected, CONFIG, compute)
        for compute in (one, TWO)
    ]
    for category in NAMES:
        assert len(reviews[0][category]) == 3
        for before, after in zip(*(review[category] for review in reviews), strict=True):
            assert after.pop("score") == pytest.approx(before.pop("score"), abs=1e-5)
            assert after == before


def test_an_image_that_cannot_be_read_names_file_and_rank(parts: World) -> None:
    before = scored(parts, "predictions", small_pipeline(NAMES), ComputeConfig(processes=1))
    path = before.index()["path"].iloc[-1]
    (parts.images.path / path).write_bytes(b"")
    with pytest.raises(ImageError, match=rf"{path} is empty .*\(rank 1 of 2 processes\)"):
        scored(parts, "predictions", small_pipeline(NAMES), TWO)
    assert len(before.index()) == 24
