"""The inference pipeline on real image files with a real, tiny model."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.models import small_pipeline

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.detections import Detection, find_detections
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.errors import DataError, DecodiffError, ModelError
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.overlays import BOX, OUTLINE, draw_overlay, encode_overlay
from decodiff_pipeline.inference.results import as_coco
from decodiff_pipeline.inference.run import as_the_model_spells
from decodiff_pipeline.inference.source import InferenceSource, Item
from decodiff_pipeline.inference.store import InferenceStore
from decodiff_pipeline.pipelines.inference.nodes import infer, report_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
THRESHOLDS = {
    "categories": {
        "mono": {"threshold": 0.02, "pixel_threshold": 0.01},
        "poly": {"threshold": None, "pixel_threshold": None},
    }
}


class World:
    """Six images, a copy of the model, and what a run makes of them."""

    def __init__(self, root: Path, model: Path, image: Callable[..., Path]) -> None:
        self.root, self.image = root, image
        self.source, self.output = root / "shots", root / "results"
        self.model = Path(shutil.copytree(model, root / "model"))
        self.thresholds: dict[str, Any] = json.loads(json.dumps(THRESHOLDS))
        self.config: dict[str, Any] = {"batch_size": 2}
        self.compute = ComputeConfig(processes=1)
        for number in range(4):
            image(self.source / "mono" / f"{number}.png", number, (60, 50))
        image(self.source / "poly" / "deep" / "0.png", 8, (50, 70))
        image(self.source / "poly" / "deep" / "0.jpg", 9, (90, 40), "RGB")

    def run(self, source: Path | None = None, **config: Any) -> pd.DataFrame:
        return infer(
            InferenceSource(source or self.source),
            self.model,
            self.root / "onnx",
            self.thresholds,
            InferenceStore(self.output),
            InferenceConfig(**self.config | config),
            DataConfig(layout="folder"),
            self.compute,
        )

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Every output file: content and time of its last change."""
        found = sorted(p for p in self.output.rglob("*") if p.is_file() and p.name != ".lock")
        return {
            p.relative_to(self.output).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
            for p in found
        }

    def maps(self) -> dict[str, np.ndarray]:
        """Every map: its 16-bit values."""
        found = (self.output / "maps").rglob("*.png")
        return {str(p.relative_to(self.output)): np.asarray(Image.open(p), int) for p in found}


def assert_close(maps: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Another number of threads sums in another order, which may move a value by one of 65,536."""
    assert maps.keys() == expected.keys()
    for name, values in maps.items():
        np.testing.assert_allclose(values, expected[name], atol=1)


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, make: Any) -> World:
    return World(tmp_path, tiny_model, make.image)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes of the images that the model has seen since it was last cleared."""
    seen: list[tuple[int, int]] = []
    call = DeCoDiffPipeline.__call__

    def counting(self: DeCoDiffPipeline, images: Any, *args: Any, **options: Any) -> Any:
        seen.extend(options["sizes"])
        return call(self, images, *args, **options)

    monkeypatch.setattr(DeCoDiffPipeline, "__call__", counting)
    return seen


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


def test_manifests(world: World, scored: list[Any]) -> None:
    by_folder = world.run().set_index("path")
    table = pd.DataFrame(
        {
            "path": ["mono/3.png", "./poly/deep/0.png", "mono/1.png"],
            "category": ["mono", "poly", "poly"],
            "sha256": [by_folder["sha256"]["mono/3.png"].upper(), None, "0" * 64],
        }
    )
    table.to_csv(world.source / "list.csv", index=False)
    table.to_parquet(world.source / "list.parquet")
    world.output = world.root / "from_list"
    results = world.run(world.source / "list.csv")
    assert results["path"].tolist() == ["mono/3.png", "poly/deep/0.png", "mono/1.png"]
    for path in results["path"][:2]:
        row = results.set_index("path").loc[path]
        assert row["score"] == pytest.approx(by_folder["score"][path], abs=1e-6)
    assert "1.png has the SHA-256" in results["error"][2]
    scored.clear()
    pd.testing.assert_frame_equal(world.run(world.source / "list.parquet").iloc[:2],
                                  results.iloc[:2])  # fmt: skip
    assert scored == []
    assert set(world.run(world.source / "list.csv", category="mono")["category"]) == {"mono"}


def test_a_flat_folder_needs_no_category_where_the_model_knows_one(
    world: World, scored: list[Any]
) -> None:
    shutil.rmtree(world.model)
    small_pipeline(["mono"]).save_pretrained(world.model)
    world.image(world.source / "mono" / "speck.png", 5, (1, 1))
    results = world.run(world.source / "mono")
    assert set(results["category"]) == {"mono"}
    assert scored == [(60, 50)] * 4
    assert results["path"].tolist() == ["0.png", "1.png", "2.png", "3.png", "speck.png"]
    (error,) = results["error"].dropna()
    assert "speck.png has 1x1 pixels, too few to be scored" in error
    with pytest.raises(ModelError, match="category 'poly', which the model does not know"):
        world.run()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,category\na.png,mono\n", r"list.csv has no column 'path' \(it has file, category"),
        ("path\nmono/0.png\n", "no column 'category'.*inference.category"),
        ("path,category\n../secret.png,mono\n", r"the path '../secret.png' in line 2 is not in"),
        ("path,category\n/etc/passwd,mono\n", "the path '/etc/passwd' in line 2 is not in"),
        ("path,category\nmono/0.png,mono\n./mono/0.png,mono\n", "lines 2 and 3 both name 'mono/0"),
        ("path,category\nmono/0.png,\n", r"line 2 \('mono/0.png'\) has no category"),
        ("path,category\n", "holds no image"),
        ("path,category\nmono/0.png,wood\n", "category 'wood', which the model.*mono, poly"),
        ("", "list.csv is empty: write"),
    ],
)
def test_a_wrong_manifest_is_told_before_any_work(
    world: World, scored: list[Any], content: str, sentence: str
) -> None:
    (world.source / "list.csv").write_text(content)
    with pytest.raises(DecodiffError, match=sentence):
        world.run(world.source / "list.csv")
    assert scored == []
    assert not world.output.exists()


@pytest.mark.parametrize(
    ("source", "config", "sentence"),
    [
        ("nowhere", {}, r"inference\.source .*nowhere does not exist"),
        ("empty", {}, "empty holds no image"),
        ("shots/mono", {}, r"0\.png lies in no folder.*inference\.category"),
        ("", {}, r"inference\.output .* lies in inference\.source"),
        ("shots/poly", {}, "category 'deep'.*it knows mono, poly"),
        ("shots", {"thresholds": {"wood": 0.5}}, r"inference\.thresholds has the unknown"),
        ("shots", {"pixel_thresholds": {"wood": 0.5}}, r"inference\.pixel_thresholds has the unk"),
    ],
)
def test_other_mistakes_are_told_before_any_work(
    world: World, scored: list[Any], source: str, config: dict[str, Any], sentence: str
) -> None:
    (world.root / "empty").mkdir()
    with pytest.raises(DecodiffError, match=sentence):
        world.run(world.root / source, **config)
    assert scored == []
    assert not world.output.exists()


def test_a_missing_model_and_a_file_as_the_output_are_told(world: World) -> None:
    world.output.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write to .*results .*inference\.output"):
        world.run()
    shutil.rmtree(world.model)
    with pytest.raises(ModelError, match="model holds no file; run `kedro run"):
        world.run()


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


def test_detections_are_connected_regions_in_pixels() -> None:
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:5, 3:9] = 0.5
    anomaly_map[5, 9] = 0.75  # touches by its corner
    anomaly_map[15, 20:22] = 1.0
    anomaly_map[18, 0] = 0.4
    first, second = find_detections(anomaly_map, 0.5)
    assert first == Detection(3, 2, 7, 4, 19, pytest.approx((18 * 0.5 + 0.75) / 19, abs=1e-6))
    assert second == Detection(20, 15, 2, 1, 2, 1.0)
    assert find_detections(anomaly_map, 0.5, min_area=3) == [first]
    assert find_detections(anomaly_map, 1.1) == []


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "tile"])
def test_detections_in_the_tables_are_those_of_the_map(
    world: World, scored: list[Any], fit: str
) -> None:
    index = world.model / "model_index.json"
    saved = json.loads(index.read_text())
    geometry = {"resize": 32, "image_size": 32, "fit": fit}
    index.write_text(json.dumps(saved | {"preprocess": geometry}))
    world.config |= {"maps": "tiff", "pixel_thresholds": {"mono": 0.02}}
    results = world.run()
    mono, poly = results.iloc[:4], results.iloc[4:]
    assert poly["detections"].isna().all()
    for row in mono.itertuples():
        anomaly_map = np.asarray(Image.open(world.output / row.map))
        found = json.loads(row.detections)
        assert sum(one["area"] for one in found) == row.flagged_pixels
        expected = [one._asdict() for one in find_detections(anomaly_map, 0.02)]
        assert found == expected
    coco = json.loads(json.dumps(as_coco(results)))
    assert [one["name"] for one in coco["categories"]] == ["mono", "poly"]
    assert [one["file_name"] for one in coco["images"]] == results["path"].tolist()
    assert sum(one["area"] for one in coco["annotations"]) == mono["flagged_pixels"].sum()

    scored.clear()
    largest = max(one["area"] for one in coco["annotations"])
    fewer = world.run(min_area=largest)
    assert len(scored) == 6
    assert max(map(len, map(json.loads, fewer["detections"].iloc[:4]))) == 1


def test_an_overlay_marks_what_is_flagged_and_hides_none_of_it() -> None:
    image = Image.new("L", (300, 200), 100)
    anomaly_map = np.zeros((200, 300), np.float32)
    anomaly_map[50:60, 80:100] = 0.5
    overlay = np.asarray(draw_overlay(image, anomaly_map, 0.5))
    line = (overlay == OUTLINE).all(-1)
    assert line[49, 80:100].all()
    assert line[50:60, 100].all()
    assert not line[50:60, 80:100].any()
    assert (overlay[:40] == 100).all()  # where nothing is anomalous the image shows as it is
    assert (overlay[55, 90] != 100).any()
    assert not (np.asarray(draw_overlay(image, anomaly_map, None)) == OUTLINE).all(-1).any()
    boxed = draw_overlay(image, anomaly_map, 0.5, find_detections(anomaly_map, 0.5))
    ys, xs = np.nonzero((np.asarray(boxed) == BOX).all(-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (48, 61, 78, 101)


def test_an_overlay_longer_than_jpeg_allows_is_reduced() -> None:
    with Image.open(io.BytesIO(encode_overlay(Image.new("RGB", (70_000, 40))))) as overlay:
        assert overlay.format == "JPEG"


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


def test_a_category_is_known_in_either_unicode_form() -> None:
    nfc, nfd = "Geh\u00e4use", "Geha\u0308use"
    items = [Item("0.png", nfd), Item("1.png", nfc), Item("2.png", "cap")]
    spelt = as_the_model_spells(items, [nfc])
    assert [item.category for item in spelt] == [nfc, nfc, "cap"]
    assert [item.category for item in as_the_model_spells(items, [nfd])] == [nfd, nfd, "cap"]
