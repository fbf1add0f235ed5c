"""An environment for a folder of images: what is written, why, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.data.transforms import AugmentationConfig
from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig
from decodiff_pipeline.errors import ConfigurationError, DataError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.pipelines.data_validation.nodes import validate
from decodiff_pipeline.pipelines.recommend.nodes import recommend
from decodiff_pipeline.recommend.choices import (
    Facts,
    choose_fit,
    choose_flips,
    choose_geometry,
    choose_steps,
    choose_views,
    detail_kept,
    flip_ratios,
)
from decodiff_pipeline.recommend.config import RecommendConfig, target
from decodiff_pipeline.recommend.layout import find_layout, missing
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.visibility.config import VisibilityConfig

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from decodiff_pipeline.deco.weights import AutoencoderConfig

BASE = PreprocessConfig(128, 128)
TRAINING = TrainingConfig(preset="nano", steps=850, batch_size=2, threads=1)
SCORING = ScoringConfig(discrepancy=DiscrepancyConfig(normalisation="position"))


def facts(**changes: Any) -> Facts:
    """Of 100 square images of 512 pixels, without masks and rich in detail."""
    usual: dict[str, Any] = {
        "sizes": [(512, 512)] * 4, "train": 100, "mask_side": None, "detail": 0.9, "flips": [None],
    }  # fmt: skip
    return Facts(**usual | changes)


def run(
    raw: Path, autoencoder: AutoencoderConfig, compute: dict[str, Any] | None = None, **config: Any
) -> None:
    compute = compute or {"processes": 1}
    recommend(
        raw, raw.parent / "conf", RecommendConfig(**config), DataConfig(layout="elpv"), BASE,
        autoencoder, LatentCacheConfig(), TRAINING, SCORING, VisibilityConfig(), ValidationConfig(),
        EvaluationConfig(),
        ComputeConfig(**compute),
    )  # fmt: skip


def written(folder: Path) -> dict[str, Any]:
    return {
        key: value
        for file in folder.glob("*.yml")
        for key, value in yaml.safe_load(file.read_text()).items()
    }


def test_what_is_written_passes_validation_and_has_reasons(
    tmp_path: Path, make: SimpleNamespace, tiny_autoencoder: AutoencoderConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "decodiff_pipeline")
    raw = tmp_path / "raw"
    make.category(raw / "parts", "bolt")
    run(raw, tiny_autoencoder, dataset="parts", name="0815", minutes=1)
    folder = tmp_path / "conf" / "0815"
    found = written(folder)
    assert found["dataset"] == "parts"
    data, geometry = DataConfig(**found["data"]), PreprocessConfig(**found["preprocessing"])
    latents = LatentCacheConfig(**found["latent_cache"])
    training = TrainingConfig(**found["training"])
    assert data.layout == "mvtec"
    assert (geometry.image_size, geometry.resize, geometry.fit) == (128, 128, "stretch")
    assert latents.views > 3
    assert found["autoencoder"]["source"] == tiny_autoencoder.source
    assert (training.preset, training.batch_size) == ("nano", 2)
    assert training.steps is not None
    assert training.steps >= 400
    assert "scoring" not in found
    for file in folder.glob("*.yml"):
        assert file.read_text().count(" # ") >= 1, file
    images = ImageFolder(raw / "parts")
    manifest = build_manifest(images, data)
    report, _ = validate(manifest, images, data, geometry, ValidationConfig())
    assert report["success"], report["checks"]
    assert "layout mvtec: matches 40 of 40 image files, category bolt" in caplog.messages
    assert "next: kedro run --env 0815" in caplog.messages


def test_an_environment_that_is_there_is_left_alone_unless_told(
    tmp_path: Path, make: SimpleNamespace, tiny_autoencoder: AutoencoderConfig
) -> None:
    raw = tmp_path / "raw"
    bolt = make.category(raw / "parts", "bolt")
    # The data validation reports it.
    (bolt / "ground_truth" / "scratch" / "000_mask.png").write_bytes(b"damaged")
    folder = tmp_path / "conf" / "parts"
    folder.mkdir(parents=True)
    (folder / "credentials.yml").write_text("mine: 1\n")
    (folder / "globals.yml").write_text("dataset: old\n")
    with pytest.raises(ConfigurationError, match="conf/parts exists already"):
        run(raw, tiny_autoencoder, dataset="parts")
    assert (folder / "globals.yml").read_text() == "dataset: old\n"
    run(raw, tiny_autoencoder, dataset="parts", overwrite=True, minutes=1)
    assert "dataset: parts" in (folder / "globals.yml").read_text()
    assert (folder / "credentials.yml").read_text() == "mine: 1\n"


@pytest.mark.parametrize("name", ["base", "local", "..", "a/b", "", "bolts and nuts", "-x"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw" / "parts").mkdir(parents=True)
    config = RecommendConfig(dataset="parts", name=name)
    with pytest.raises(ConfigurationError, match="cannot be the name of an environment"):
        target(config, tmp_path / "raw", tmp_path / "conf")


def test_where_the_images_are_is_found_out(tmp_path: Path) -> None:
    raw, conf = tmp_path / "raw", tmp_path / "conf"
    (raw / "parts").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").touch()
    inside = target(RecommendConfig(source=str(raw / "parts"), name="mine"), raw, conf)
    assert (inside.acquired, inside.dataset, inside.name) == (True, "parts", "mine")
    outside = target(RecommendConfig(source=str(tmp_path / "elsewhere")), raw, conf)
    assert (outside.acquired, outside.dataset, outside.name) == (False, "elsewhere", "elsewhere")
    for source, said in (("nowhere", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(DataError, match=said):
            target(RecommendConfig(source=str(tmp_path / source)), raw, conf)
    with pytest.raises(ConfigurationError, match=r"recommend\.source=path/to/folder"):
        target(RecommendConfig(), raw, conf)
    with pytest.raises(ValidationError, match="not both"):
        RecommendConfig(source="a", dataset="b")


LAYOUTS = {
    "mvtec": ["bolt/train/good/0.png", "bolt/test/dent/0.png", "bolt/ground_truth/dent/0_mask.png"],
    "folder": ["good/0.png", "good/1.png", "dent/0.png", "masks/dent/0.png"],
    "btad": ["01/train/ok/0.png", "01/test/ok/0.png", "01/test/ko/0.png"],
    "mvtec_loco": ["pin/train/good/0.png", "pin/validation/good/0.png", "pin/test/good/0.png"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_found_by_trying_all(
    tmp_path: Path, make: SimpleNamespace, name: str
) -> None:
    for number, path in enumerate(LAYOUTS[name]):
        make.image(tmp_path / path, number)
    best, every = find_layout(tmp_path)
    assert best.layout == name
    assert best.known == len(LAYOUTS[name])
    assert len({one.layout for one in every}) == len(every) > 5
    assert all(one.why for one in every)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "contains no image"),
        (["notes.txt"], "contains no image"),
        (["good/0.png"], "contains one image, good/0.png"),
        (["0.png", "1.png"], "put the good ones into .*/good"),
        (["ok/0.png", "ok/1.png"], "put the good ones into .*/good.*rename it"),
        (["train/good/0.png", "test/good/0.png"], "move them into"),
        (["dent/0.png", "scratch/0.png"], "in no known layout"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_sentence(
    tmp_path: Path, make: SimpleNamespace, files: list[str], said: str
) -> None:
    for number, name in enumerate(files):
        if name.endswith(".png"):
            make.image(tmp_path / name, number)
        else:
            (tmp_path / name).touch()
    with pytest.raises(DataError, match=said) as raised:
        find_layout(tmp_path)
    assert "\n" not in str(raised.value)


def test_what_a_data_set_lacks_is_told(tmp_path: Path, make: SimpleNamespace) -> None:
    shutil.rmtree(make.category(tmp_path, "nut") / "ground_truth")
    shutil.rmtree(make.category(tmp_path, "pin", train=9) / "test" / "scratch")
    manifest = build_manifest(ImageFolder(tmp_path), DataConfig(layout="mvtec"))
    held = (manifest["split"] == "calibration").groupby(manifest["category"]).sum()
    said = missing(manifest, 20, 0.05)
    needed = "calibration images and needs 19 for a false-positive rate of 0.05"
    assert [one.split(":")[0] for one in said] == [
        f"nut has {held['nut']} {needed}",
        "nut has no masks",
        "pin has 7 good images to train on and needs 20",
        f"pin has {held['pin']} {needed}",
        "pin has no defective images",
    ]
    assert not any("calibration" in one for one in missing(manifest, 20, 0.9))


def pictures(kind: str) -> list[Image.Image]:
    """Ten images: an arrow seen one way, a symmetrical one, or a texture of any orientation."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(10):
        pixels = random.normal(0, 10 if kind != "texture" else 60, (48, 48)) + 100
        if kind in {"arrow", "symmetrical"}:
            pixels[10:20, 20:28] += 80
            if kind == "arrow":
                pixels[20:40, 5:15] += 60
        drawn.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return drawn


@pytest.mark.parametrize(
    ("kind", "horizontal", "vertical"),
    [("arrow", False, False), ("symmetrical", True, False), ("texture", True, True)],
)
def test_flips_are_those_that_make_normal_images(
    kind: str, horizontal: bool, vertical: bool
) -> None:
    chosen = choose_flips(facts(flips=[flip_ratios(pictures(kind))]))
    assert chosen["horizontal_flip"].value is horizontal
    assert chosen["vertical_flip"].value is vertical
    assert set(chosen) <= {field.name for field in dataclasses.fields(AugmentationConfig)}


def test_a_flip_has_to_suit_every_category_and_to_be_known() -> None:
    ratios = [flip_ratios(pictures(kind)) for kind in ("texture", "arrow")]
    assert choose_flips(facts(flips=ratios))["horizontal_flip"].value is False
    few = [flip_ratios(pictures("texture")[:5])]
    assert few == [None]
    assert "too few" in choose_flips(facts(flips=few))["horizontal_flip"].why


@pytest.mark.parametrize(
    ("sizes", "fit"),
    [
        ([(500, 500), (510, 490)], "stretch"),
        ([(1000, 500)] * 3, "stretch"),
        ([(300, 500), (500, 300), (400, 400)], "letterbox"),
        ([(2000, 400)] * 3, "tile"),
        ([(400, 2000)] * 3, "tile"),
    ],
)
def test_the_fit_follows_from_the_shapes(sizes: list[tuple[int, int]], fit: str) -> None:
    assert choose_fit(sizes).value == fit


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mask_side": 20}, (128, 128, "stretch")),
        ({"mask_side": 10}, (256, 256, "stretch")),
        ({"mask_side": 6}, (128, 342, "tile")),
        ({"mask_side": 2}, (128, 416, "tile")),  # 16 tiles and no more
        ({"mask_side": 1, "sizes": [(128, 128)]}, (128, 128, "stretch")),
        ({"detail": 0.3}, (256, 256, "stretch")),
        ({"detail": 0.3, "sizes": [(100, 100)]}, (128, 128, "stretch")),
        ({}, (128, 128, "stretch")),
    ],
)
def test_the_size_follows_from_the_smallest_masks_or_the_detail(
    changes: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    geometry, reasons = choose_geometry(facts(**changes), BASE)
    assert (geometry.image_size, geometry.resize, geometry.fit) == expected
    assert set(reasons) == {"image_size", "resize", "fit"}


def test_detail_is_lost_by_fine_texture_and_not_by_shades() -> None:
    fine = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    assert detail_kept(Image.fromarray(fine)) < 0.2
    assert detail_kept(Image.linear_gradient("L")) > 0.9
    assert detail_kept(Image.fromarray(fine[:100, :100])) == 1


def test_views_and_steps() -> None:
    assert choose_views(facts(train=50), BASE).value == 12
    assert choose_views(facts(train=1000), BASE).value == 3
    tiles = PreprocessConfig(256, 128, "tile")
    assert choose_views(facts(train=1000), tiles).value == 9
    assert choose_steps(20, seconds=1).value == 1200
    assert choose_steps(20, seconds=100).value == 400
    assert choose_steps(20, seconds=0.01).value == 3000
    assert "about 20 minutes" in choose_steps(20, seconds=1).why
