"""Scores, maps and decisions, and what an interrupted or repeated run does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.inference.conftest import THRESHOLDS, World, assert_close

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.inference.store import InferenceStore
from decodiff_pipeline.pipelines.inference.nodes import report_unreadable

ROOT = Path(__file__).parents[2]


def test_scores_maps_and_decisions_are_those_of_the_model(world: World) -> None:
    results = world.run()
    assert list(results["path"]) == [
        "mono/0.png", "mono/1.png", "mono/2.png", "mono/3.png",
        "poly/deep/0.jpg", "poly/deep/0.png",
    ]  # fmt: skip
    assert list(results["category"]) == ["mono"] * 4 + ["poly"] * 2
    images = [Image.open(world.source / path) for path in results["path"]]
    expected = DeCoDiffPipeline.from_pretrained(world.model)(images, list(results["category"]))
    assert results["score"].tolist() == pytest.approx(expected.scores.tolist(), abs=1e-6)
    mono, poly = results.iloc[:4], results.iloc[4:]
    assert set(mono["threshold"]) == {0.02}
    flagged = ["defective" if score >= 0.02 else "good" for score in mono["score"]]
    assert mono["decision"].tolist() == flagged
    assert poly[["threshold", "decision", "pixel_threshold", "flagged_pixels"]].isna().all(None)
    for row, image in zip(results.itertuples(), images, strict=True):
        assert (row.width, row.height) == image.size
        with Image.open(world.output / row.map) as grey:
            assert (grey.format, grey.mode, grey.size) == ("PNG", "I;16", image.size)
            values = np.asarray(grey) / 65535
        with Image.open(world.output / row.overlay) as overlay:
            assert (overlay.format, overlay.mode, overlay.size) == ("JPEG", "RGB", image.size)
        if row.category == "mono":
            assert abs(int((values >= 0.01).sum()) - row.flagged_pixels) <= 1
            assert row.flagged_share == pytest.approx(row.flagged_pixels / values.size)
    assert results["error"].isna().all()
    assert results["map"].is_unique
    report_unreadable(results)


def test_a_second_run_does_nothing(world: World, scored: list[Any]) -> None:
    first, before = world.run(), world.files()
    scored.clear()
    pd.testing.assert_frame_equal(world.run(), first)
    assert scored == []
    assert world.files() == before


def test_what_changed_is_done_again_and_nothing_else(world: World, scored: list[Any]) -> None:
    first = world.run()
    scored.clear()
    world.image(world.source / "mono" / "2.png", 77, (64, 48))
    world.image(world.source / "mono" / "new.png", 78, (33, 34))
    (world.source / "mono" / "0.png").unlink()
    second = world.run()
    assert scored == [(64, 48), (33, 34)]
    assert second["path"].iloc[:4].tolist() == [f"mono/{n}.png" for n in ("1", "2", "3", "new")]
    assert second["score"][1] != first["score"][2]
    assert not {"maps/mono/0.png.png", "overlays/mono/0.png.jpg"} & world.files().keys()

    scored.clear()
    (world.output / "maps/mono/1.png.png").unlink()
    world.run()
    assert scored == [(60, 50)]
    assert "maps/mono/1.png.png" in world.files()


def test_another_model_does_everything_again(world: World, scored: list[Any]) -> None:
    first = world.run()
    file = world.model / "model_index.json"
    file.write_text(file.read_text() + "\n")
    scored.clear()
    second = world.run()
    assert len(scored) == 6
    assert set(first["model_sha256"]).isdisjoint(second["model_sha256"])


def test_thresholds_redo_what_hangs_on_them(world: World, scored: list[Any]) -> None:
    first, before = world.run(), world.files()
    scored.clear()
    second = world.run(thresholds={"mono": 1.0, "poly": 0.0})
    assert scored == []  # the image threshold decides, but shows in no file
    assert world.files() == before
    assert second["decision"].tolist() == ["good"] * 4 + ["defective"] * 2
    assert second["score"].tolist() == first["score"].tolist()

    third = world.run(pixel_thresholds={"mono": 0.0})
    assert scored == [(60, 50)] * 4  # the overlays of mono, and none of poly
    assert third["flagged_share"].iloc[:4].tolist() == [1.0] * 4

    scored.clear()
    world.thresholds["categories"]["poly"] = {"threshold": 0.9, "pixel_threshold": 0.9}
    assert world.run(pixel_thresholds={"mono": 0.0})["decision"].iloc[5] == "good"
    assert len(scored) == 2


def test_maps_as_exact_tiff_or_not_at_all(world: World) -> None:
    greys = {row.path: world.output / row.map for row in world.run().itertuples()}
    quantised = {path: np.asarray(Image.open(file)) / 65535 for path, file in greys.items()}
    results = world.run(maps="tiff", overlays=False)
    for row in results.itertuples():
        with Image.open(world.output / row.map) as exact:
            assert (exact.format, exact.mode) == ("TIFF", "F")
            assert np.asarray(exact) == pytest.approx(quantised[row.path], abs=1 / 65535)
    assert not [name for name in world.files() if name.endswith((".png", ".jpg"))]

    results = world.run(maps="none", overlays=False)
    assert results[["map", "overlay"]].isna().all(None)
    assert world.files().keys() == {"journal.jsonl"}


def test_an_image_that_cannot_be_read_stops_no_other(world: World, scored: list[Any]) -> None:
    whole = (world.source / "mono" / "1.png").read_bytes()
    (world.source / "mono" / "1.png").write_bytes(whole[:-40])
    (world.source / "mono" / "3.png").unlink()
    (world.source / "mono" / "3.png").symlink_to(world.source / "mono" / "0.png")
    world.image(world.source / "mono" / f"{'n' * 230}.png", 5)
    results = world.run()
    assert results["error"].notna().tolist() == [False, True, False, True, True, False, False]
    assert results.loc[1, ["score", "decision", "map", "flagged_share"]].isna().all()
    with pytest.raises(DataError, match=r"3 of 7 images could not be scored.*1\.png is damaged"):
        report_unreadable(results)
    before = world.files()
    scored.clear()
    world.run()
    assert world.files().keys() == before.keys()
    assert scored == []
    (world.source / "mono" / "1.png").write_bytes(whole)
    assert world.run()["error"].notna().sum() == 2
    assert scored == [(60, 50)]


KILLED = """
import os, signal, sys
from pathlib import Path
from decodiff_pipeline.data import atomic
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.inference.store import InferenceStore, Journal
from decodiff_pipeline.pipelines.inference.nodes import infer

root, last = Path(sys.argv[1]), int(sys.argv[2])
save, written = Journal.save, []
def save_and_die(self, name, content):
    written.append(name)
    if len(written) < last:
        return save(self, name, content)
    with atomic.replacing(self._folder / name) as temporary:  # half a file is on the disk
        temporary.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
Journal.save = save_and_die
infer(InferenceSource(root / "shots"), root / "model", root / "onnx", {"categories": {}},
      InferenceStore(root / "results"), InferenceConfig(batch_size=2), DataConfig(layout="folder"))
"""


def test_two_processes_score_as_one(world: World, tmp_path: Path) -> None:
    """One image cannot be read; a second run has nothing to do."""
    (world.source / "mono" / "3.png").write_bytes(b"no image")
    expected, before = world.run(), world.maps()
    shutil.rmtree(world.output)
    world.compute = ComputeConfig(processes=2, threads=1)
    results = world.run()
    assert results["error"].notna().sum() == 1
    inexact = ["score", "flagged_pixels", "flagged_share", "detections"]
    pd.testing.assert_frame_equal(results.drop(columns=inexact), expected.drop(columns=inexact))
    np.testing.assert_allclose(
        results["score"].astype(float), expected["score"].astype(float), atol=1e-5
    )
    assert_close(world.maps(), before)
    files = {name: content for name, (content, _) in world.files().items()}
    pd.testing.assert_frame_equal(world.run(), results)
    assert {name: content for name, (content, _) in world.files().items()} == files


def test_a_killed_run_goes_on(world: World, scored: list[Any]) -> None:
    world.thresholds = {"categories": {}}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(world.root), "7"],  # two files an image, two a batch
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len((world.output / "journal.jsonl").read_text().splitlines()) == 2
    assert list(world.output.rglob(".*.tmp"))
    with (world.output / "journal.jsonl").open("a") as journal:
        journal.write('{"path": "mono/2.pn')  # as a kill within the write leaves it
    results, resumed = world.run(), world.maps()
    assert len(scored) == 4
    assert not list(world.output.rglob(".*.tmp"))
    shutil.rmtree(world.output)
    pd.testing.assert_frame_equal(world.run(), results)
    assert_close(world.maps(), resumed)


def test_two_runs_do_not_write_to_one_folder(world: World) -> None:
    with (
        InferenceStore(world.output).writing(),
        pytest.raises(DataError, match=r"another run is writing to .*results"),
    ):
        world.run()


def test_a_journal_that_was_edited_removes_nothing_elsewhere(world: World) -> None:
    world.run(category="mono")
    precious = world.root / "precious.png"
    precious.write_bytes(b"mine")
    journal = world.output / "journal.jsonl"
    row = json.loads(journal.read_text().splitlines()[0])
    row |= {"path": "gone.png", "map": "maps/../../precious.png", "overlay": str(precious)}
    journal.write_text(journal.read_text() + json.dumps(row) + "\n")
    world.run(category="mono")
    assert precious.exists()
    assert "gone.png" not in journal.read_text()


def test_an_image_that_the_fit_cannot_take_stops_no_other(world: World) -> None:
    index = world.model / "model_index.json"
    saved = json.loads(index.read_text())
    index.write_text(json.dumps(saved | {"preprocess": saved["preprocess"] | {"fit": "crop"}}))
    world.image(world.source / "mono" / "0.png", 1, (1800, 10))
    results = world.run()
    assert results["error"].notna().tolist() == [True] + [False] * 5
    assert "1800x10 pixels is too narrow" in results["error"][0]


@pytest.mark.slow
def test_as_a_user_runs_it(world: World) -> None:
    shutil.copytree(ROOT / "conf" / "base", world.root / "conf" / "base")
    shutil.copy(ROOT / "conf" / "logging.yml", world.root / "conf")
    (world.root / "conf" / "local").mkdir()
    shutil.copy(ROOT / "pyproject.toml", world.root)
    (world.root / "src").mkdir()
    models = world.root / "data" / "06_models" / "elpv"
    models.mkdir(parents=True)
    (world.root / "shot #2").symlink_to(world.source)

    def run(*parameters: str) -> subprocess.CompletedProcess[str]:
        given = ",".join(["inference.source=shot #2", *parameters])
        return subprocess.run(
            [sys.executable, "-m", "kedro", "run", "--pipelines", "inference", "--params", given],
            cwd=world.root,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"},
        )

    missing = run()
    assert missing.returncode == 1
    assert "thresholds.json (thresholds) does not exist yet; `kedro run" in missing.stderr

    world.model.rename(models / "pipeline")
    (models / "thresholds.json").write_text(json.dumps(THRESHOLDS))
    (world.source / "mono" / "3.png").write_bytes(b"no image")
    done = run("inference.thresholds.poly=0.9")
    assert done.returncode == 1, done.stderr
    assert "Error: 1 of 6 images could not be scored; the first: " in done.stderr
    assert "Traceback" not in done.stderr
    output = world.root / "data" / "07_model_output" / "elpv" / "inference"
    results = pd.read_parquet(output / "results.parquet")
    assert results["threshold"].tolist()[4:] == [0.9, 0.9]
    assert (output / results["map"][0]).is_file()
    assert pd.read_csv(output / "results.csv")["path"].tolist() == results["path"].tolist()
    assert len(json.loads((output / "detections.json").read_text())["images"]) == 5

    (world.source / "mono" / "3.png").unlink()
    done = run("inference.output=elsewhere", "inference.maps=none")
    assert done.returncode == 0, done.stderr
    assert "5 images (5 scored now)" in done.stderr
    assert len(pd.read_parquet(world.root / "elsewhere" / "results.parquet")) == 5
    assert not (world.root / "mlflow.db").exists()
