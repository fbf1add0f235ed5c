"""From a manifest to predictions on disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.errors import DataError, ImageError, ModelError
from decodiff_pipeline.evaluation.predict import model_input
from decodiff_pipeline.evaluation.predictions import PredictionStore, file_stem
from decodiff_pipeline.evaluation.scoring import score_images

if TYPE_CHECKING:
    from pathlib import Path

    from tests.evaluation.conftest import World


def test_every_image_outside_train_is_scored_into_plain_npy(plate: World) -> None:
    store = plate.scored()
    assert store.index()["split"].value_counts().to_dict() == {"calibration": 5, "test": 13}
    assert sum(plate.model.calls) == 18
    maps, pictures = store.maps("plate"), store.reconstructions("plate")
    assert len(maps) == len(pictures) == 18
    assert isinstance(maps[3], np.memmap)
    assert (maps[3].dtype, maps[3].shape) == (np.float32, (64, 64))
    assert (pictures[3].dtype, pictures[3].shape) == (np.uint8, (64, 64, 3))
    assert np.load(store.path / "plate.maps.npy").shape == (18 * 64 * 64,)


def test_maps_and_scores_belong_to_their_images(world: World) -> None:
    names = ("plate", "odd/../$name")
    for name in names * 2:  # rows of both categories alternate in the manifest
        world.add(name, "test", "good", 3)
        world.add(name, "test", "defective", 2)
    store = world.scored()
    assert world.model.calls == [4, 4, 4, 4, 4]  # full across categories
    index = store.index()
    assert index["path"].tolist() == world.manifest["path"].tolist()
    for row in index.itertuples():
        given = model_input(
            world.images.read(row.path), row.path, row.category, world.model.preprocessing
        )
        expected = world.model(to_tensor(given.squares), [row.category], sizes=[given.size])
        assert np.array_equal(store.maps(row.category)[row.row], expected.anomaly_maps[0])
        picture = store.reconstructions(row.category)[row.row]
        assert np.array_equal(picture, expected.reconstructions[0])
        assert row.score == expected.scores[0]


def test_reading_ahead_keeps_the_order_and_is_bounded() -> None:
    started = []

    def read(number: int) -> int:
        started.append(number)
        if number == 7:
            raise ImageError("unreadable")
        return number

    results = read_ahead(read, range(10), ahead=2)
    assert next(results) == 0
    assert max(started) <= 2
    assert [next(results) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ImageError, match="unreadable"):
        next(results)


def test_any_category_name_becomes_a_plain_file_name_of_its_own() -> None:
    names = ["../up", "a/b", "cap", "Cap", "CAP", "ä", "ö", "", ".", "nul\x00", "a b", "a_b", "a-b"]
    stems = [file_stem(name) for name in [*names, "x" * 300]]
    assert len(set(stems)) == len(stems)
    for stem in stems:
        assert stem == os.path.basename(stem)
        assert stem.isascii()
        assert stem.islower()
        assert 0 < len(stem) < 100
        assert not stem.startswith(".")
    assert file_stem("metal_nut") == "metal_nut"


def test_nan_names_the_image_and_keeps_the_old_predictions(plate: World) -> None:
    before = plate.scored().index()
    bad = plate.manifest[plate.manifest["split"] == "test"].iloc[7]["path"]
    original = model_input(plate.images.read(bad), bad, "plate", plate.model.preprocessing)
    answer = type(plate.model).__call__

    class Diverged(type(plate.model)):  # type: ignore[misc]
        def __call__(self, images, category, **options):  # type: ignore[no-untyped-def]
            output = answer(self, images, category, **options)
            for image, anomaly_map in zip(images, output.anomaly_maps, strict=True):
                if torch.equal(image[None], to_tensor(original.squares)):
                    anomaly_map[3, 3] = np.nan
            return output

    with pytest.raises(ModelError, match=f"NaN.*{bad}"):
        score_images(Diverged(), plate.manifest, plate.images, plate.store, plate.config)
    assert plate.store.index().equals(before)
    assert len(plate.store.maps("plate")) == len(before)


def test_an_unknown_category_stops_before_anything_is_scored(plate: World) -> None:
    plate.add("gasket", "test", "good", 1)
    with pytest.raises(ModelError, match=r"'gasket'.*plate"):
        plate.scored()
    assert plate.model.calls == []


def test_an_unreadable_image_keeps_the_old_predictions(plate: World) -> None:
    before = plate.scored().index()
    path = before["path"].iloc[-1]
    (plate.images.path / path).write_bytes(b"no image")
    with pytest.raises(ImageError, match=path):
        plate.scored()
    assert plate.store.index().equals(before)


def test_a_killed_run_keeps_the_old_predictions(plate: World) -> None:
    before = plate.scored().index()
    script = f"""
        import numpy as np, os, pathlib, signal
        from decodiff_pipeline.evaluation.predictions import PredictionStore
        store = PredictionStore(pathlib.Path({str(plate.store.path)!r}))
        def found():
            yield np.zeros((64, 64)), 0.0, np.zeros((64, 64, 3))
            os.kill(os.getpid(), signal.SIGKILL)
        store.write(store.about(), store.index().drop(columns=["score", "row"]).head(2), found())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert plate.store.index().equals(before)
    assert plate.store.maps("plate")[0].max() > 0
    assert plate.scored().index().equals(before)  # what the killed run left is no obstacle


def test_a_write_error_names_the_folder_and_keeps_the_old_predictions(
    plate: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plate.scored().index()
    message = "No space left on device"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, message)

    monkeypatch.setattr("decodiff_pipeline.evaluation.scoring.write_part", full)
    with pytest.raises(DataError, match=rf"{plate.store.path.name} \({message}\)"):
        plate.scored()
    assert plate.store.index().equals(before)


def test_missing_and_damaged_predictions_say_what_to_run(plate: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kedro run --pipelines evaluation"):
        PredictionStore(tmp_path / "nowhere").index()
    store = plate.scored()
    maps = store.path / "plate.maps.npy"
    maps.write_bytes(maps.read_bytes()[:500])
    with pytest.raises(DataError, match=r"plate\.maps\.npy cannot be read"):
        store.maps("plate")
    (store.path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"index\.parquet cannot be read"):
        store.index()
    shutil.rmtree(store.path)
    with pytest.raises(DataError, match="there is no"):
        store.maps("plate")
