from __future__ import annotations

import json
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.pipelines.data_validation import create_pipeline
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.pipelines.data_validation.nodes import gate, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

LIMITS = ValidationConfig(html="data/08_reporting/here/validation.html")
BOLT = "bolt/test/scratch/000.png"


def checked(
    root: Path,
    limits: ValidationConfig = LIMITS,
    fit: PreprocessConfig = PreprocessConfig(),
    **data: Any,
) -> tuple[pd.DataFrame, dict[str, Any], str]:
    config = DataConfig(**{"layout": "mvtec"} | data)
    images = ImageFolder(root)
    manifest = build_manifest(images, config)
    report, html = validate(manifest, images, config, fit, limits)
    return manifest, json.loads(json.dumps(report)), html


def failures(report: dict[str, Any]) -> dict[str, list[str]]:
    """Paths or categories by failed check, without the checks of held-out images."""
    return {
        check["name"]: [one["path"] or one["category"] for one in check["offenders"]]
        for check in report["checks"]
        if not check["success"]
        and check["name"] not in ("enough_val_images", "enough_calibration_images")
    }


def offenders(report: dict[str, Any], name: str) -> list[dict[str, str]]:
    """The failed rows of a check."""
    return next(check for check in report["checks"] if check["name"] == name)["offenders"]


def refusal(manifest: pd.DataFrame, report: dict[str, Any]) -> str:
    """The message with which the gate stops the run."""
    with pytest.raises(DataError) as caught:
        gate(manifest, report)
    return str(caught.value)


def test_a_sound_set_passes_and_the_gate_hands_it_on(
    mvtec_tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    manifest, report, html = checked(mvtec_tree)
    assert failures(report) == {}
    assert report["success"] is True
    assert report["categories"]["bolt"]["test"] == {"defective": 3, "good": 4}
    assert "passed" in html
    pd.testing.assert_frame_equal(gate(manifest, report), manifest)
    assert not list(temporary.iterdir())


def test_every_unreadable_image_is_found_and_named(mvtec_tree: Path) -> None:
    good = mvtec_tree / "bolt" / "train" / "good"
    whole = (good / "000.png").read_bytes()
    (good / "000.png").write_bytes(whole[: len(whole) // 2])
    (good / "001.png").write_bytes(b"")
    (good / "002.png").write_text("no image")
    (good / "003.png").unlink()
    (good / "003.png").symlink_to(good / "004.png")
    manifest, report, html = checked(mvtec_tree)
    names = [f"bolt/train/good/00{i}.png" for i in range(4)]
    assert failures(report) == {"image_decodes": names[:3], "no_links": names[3:]}
    words = ("damaged", "empty", "no readable")
    for reason, word in zip(offenders(report, "image_decodes"), words, strict=True):
        assert word in reason["detail"]
    assert all(name in html for name in names)
    message = refusal(manifest, report)
    assert "image_decodes, 3 of 37: " in message
    assert "  bolt/train/good/001.png is empty (0 bytes)" in message
    assert "data/08_reporting/here/validation.html" in message


def test_masks_missing_empty_and_of_another_size(mvtec_tree: Path, make: SimpleNamespace) -> None:
    truth = mvtec_tree / "bolt" / "ground_truth" / "scratch"
    (truth / "000_mask.png").unlink()
    make.mask(truth / "001_mask.png", value=0)
    make.mask(truth / "002_mask.png", size=(40, 48))
    manifest, report, _ = checked(mvtec_tree)
    assert failures(report) == {
        "mask_exists": [BOLT],
        "mask_not_empty": ["bolt/test/scratch/001.png"],
        "mask_size": ["bolt/test/scratch/002.png"],
    }
    message = refusal(manifest, report)
    assert re.search(r"(?s)mask_exists, 1 of 37.*mask_size.*48x40.*mask_not_empty", message)


def test_a_category_without_masks_needs_none_and_others_may_lie_beside_it(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    shutil.rmtree(mvtec_tree / "bolt" / "ground_truth")
    make.category(mvtec_tree, "nut", train=5, seed=1)
    assert failures(checked(mvtec_tree, categories=("bolt",))[1]) == {}


def test_a_category_with_too_few_train_images_or_none_or_no_image(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    make.category(mvtec_tree, "nut", train=5, seed=1)
    make.category(mvtec_tree, "pin", train=0, seed=2)
    manifest, report, _ = checked(mvtec_tree)
    assert failures(report) == {"enough_train_images": ["nut", "pin"]}
    config = DataConfig(layout="mvtec", categories=("bolt", "cap"))
    report, _ = validate(manifest, ImageFolder(mvtec_tree), config, PreprocessConfig(), LIMITS)
    assert failures(report)["category_exists"] == ["cap"]


def test_defects_in_train_are_refused(mvtec_tree: Path, make: SimpleNamespace) -> None:
    make.image(mvtec_tree / "bolt" / "train" / "bent" / "000.png", 77)
    _, report, _ = checked(mvtec_tree)
    assert failures(report) == {"only_good_outside_test": ["bolt/train/bent/000.png"]}
    assert report["success"] is False


def test_equal_pixels_in_train_and_test_stop_the_run_and_near_ones_do_not(mvtec_tree: Path) -> None:
    base = mvtec_tree / "bolt"
    Image.open(base / "train/good/000.png").point(lambda v: v ^ 1).save(base / "test/good/000.bmp")
    manifest, report, html = checked(mvtec_tree)
    assert failures(report) == {
        "no_near_duplicates": ["bolt/test/good/000.bmp"],
        "stem_of_one_image": ["bolt/test/good/000.png"],
    }
    assert report["success"] is True
    assert len(gate(manifest, report)) == len(manifest)
    assert "bolt/train/good/000.png" in html

    Image.open(base / "train/good/001.png").save(base / "test/good/001.webp", lossless=True)
    manifest, report, _ = checked(mvtec_tree)
    assert failures(report)["not_in_train_and_test"] == ["bolt/test/good/001.webp"]
    assert "001.webp: duplicate of bolt/train/good/001.png" in refusal(manifest, report)


def test_images_in_a_wrong_place_are_named(mvtec_tree: Path, make: SimpleNamespace) -> None:
    bolt = mvtec_tree / "bolt"
    lost = ["bolt/test/bent/sub/0.png", "bolt/train/good/more/0.png", "bolt/train/loose.png"]
    for number, path in enumerate([*lost, "nut/raw/good/0.png"]):
        make.image(mvtec_tree / path, 70 + number)
    make.mask(bolt / "ground_truth" / "scratch" / "999_mask.png")
    (bolt / "train" / ".hidden.png").write_text("")
    manifest, report, _ = checked(mvtec_tree)
    orphan = "bolt/ground_truth/scratch/999_mask.png"
    assert failures(report) == {"image_in_its_place": [orphan, *lost, "nut/raw/good/0.png"]}
    assert report["success"] is True
    assert len(manifest) == 37
    _, report, _ = checked(mvtec_tree, exclude=["nut/*", "bolt/*loose.png"])
    assert failures(report) == {"image_in_its_place": [orphan, *lost[:2]]}


def test_a_mask_is_of_one_image_and_lossless(mvtec_tree: Path, make: SimpleNamespace) -> None:
    make.image(mvtec_tree / "bolt" / "test" / "scratch" / "000.bmp", 71)
    truth = mvtec_tree / "bolt" / "ground_truth" / "scratch"
    Image.open(truth / "001_mask.png").save(truth / "001_mask.jpg")
    (truth / "001_mask.png").unlink()
    found = failures(checked(mvtec_tree)[1])
    assert found["mask_of_one_image"] == [BOLT]
    assert found["mask_lossless"] == ["bolt/test/scratch/001.png"]


def test_an_image_too_narrow_for_the_model_stops_the_run(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    make.image(mvtec_tree / "bolt" / "test" / "good" / "long.png", 71, size=(2000, 20))
    limits = LIMITS.model_copy(update={"min_side": 10})
    assert failures(checked(mvtec_tree, limits)[1]) == {}
    _, report, _ = checked(mvtec_tree, limits, PreprocessConfig(fit="tile"))
    assert failures(report) == {"image_fits": ["bolt/test/good/long.png"]}
    (detail,) = offenders(report, "image_fits")
    assert "too narrow for preprocessing.fit 'tile'" in detail["detail"]


def test_an_excluded_path_may_have_brackets(mvtec_tree: Path, make: SimpleNamespace) -> None:
    for number, name in enumerate(("a[0].png", "a0.png")):
        make.image(mvtec_tree / "bolt" / "train" / "good" / name, 71 + number)
    config = DataConfig(layout="mvtec", exclude=["bolt/train/good/a[0].png"])
    manifest = build_manifest(ImageFolder(mvtec_tree), config)
    excluded = manifest[manifest["split"] == "excluded"]
    assert list(excluded["path"]) == ["bolt/train/good/a[0].png"]


@pytest.mark.parametrize("names", [("mean",), ("Bolt (M8)", "Bolt [M8]")])
def test_names_of_categories_that_would_be_mistaken_are_refused(
    tmp_path: Path, make: SimpleNamespace, names: tuple[str, ...]
) -> None:
    for name in names:
        make.category(tmp_path, name, train=5, seed=1)
    with pytest.raises(DataError, match=r"another name|rename one"):
        checked(tmp_path)


def test_sizes_and_modes_out_of_bounds(mvtec_tree: Path, make: SimpleNamespace) -> None:
    good = mvtec_tree / "bolt" / "train" / "good"
    make.image(good / "000.png", 1, size=(20, 40))
    make.image(good / "001.png", 2, size=(48, 400))
    (good / "002.png").unlink()
    make.image(good / "002.jpg", 3, mode="CMYK")
    limits = ValidationConfig(max_side=300, modes=("L", "RGB"))
    manifest, report, html = checked(mvtec_tree, limits)
    assert failures(report) == {
        "image_width": ["bolt/train/good/000.png"],
        "image_height": ["bolt/train/good/001.png"],
        "image_mode": ["bolt/train/good/002.jpg"],
    }
    assert "is 20x40, below validation.min_side 32" in html
    message = refusal(manifest, report)
    for told in (
        "bolt/train/good/000.png is 20x40, below validation.min_side 32",
        "bolt/train/good/001.png is 48x400, above validation.max_side 300",
        "resize or tile the image, or change the limit",
        "bolt/train/good/002.jpg has the mode CMYK, not among validation.modes",
    ):
        assert told in message


def test_copies_in_train_and_a_mode_that_only_test_images_have_are_reported(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    make.image(mvtec_tree / "bolt/test/scratch/000.png", 600, mode="RGB")
    good = mvtec_tree / "bolt" / "train" / "good"
    shutil.copyfile(good / "000.png", good / "copy.png")
    _, report, _ = checked(mvtec_tree)
    assert failures(report) == {
        "mode_seen_in_train": [BOLT],
        "no_copies": ["bolt/train/good/copy.png"],
    }
    assert report["success"] is True


def test_excluded_images_are_not_checked_and_reported_with_the_reason(mvtec_tree: Path) -> None:
    (mvtec_tree / "bolt/train/good/003.png").write_bytes(b"")
    exclude = (
        {"path": "bolt/train/good/00[12].png", "reason": "<b>scratched</b>"},
        "bolt/train/good/003.png",
    )
    manifest, report, html = checked(mvtec_tree, exclude=exclude)
    assert failures(report) == {}
    assert report["excluded"] == 3
    assert "bolt/train/good/003.png" not in set(gate(manifest, report)["path"])
    assert report["exclusions"] == [
        {"reason": "", "paths": ["bolt/train/good/003.png"]},
        {
            "reason": "<b>scratched</b>",
            "paths": ["bolt/train/good/001.png", "bolt/train/good/002.png"],
        },
    ]
    assert "&lt;b&gt;scratched&lt;/b&gt;" in html
    assert "bolt/train/good/002.png" in html
    old = manifest.drop(columns="excluded_because")
    config = DataConfig(layout="mvtec")
    again, _ = validate(old, ImageFolder(mvtec_tree), config, PreprocessConfig(), LIMITS)
    assert [len(one["paths"]) for one in again["exclusions"]] == [3]


def test_the_page_is_self_contained_and_escapes_what_it_shows(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    nasty = "<img src=x onerror=alert(1)>&'\".png"
    make.image(mvtec_tree / "bolt" / "train" / "good" / nasty, 5, size=(20, 20))
    _, report, html = checked(mvtec_tree)
    assert failures(report)["image_width"] == [f"bolt/train/good/{nasty}"]
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "data:image/png;base64," in html
    sources = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'> ]+)", html.replace("&lt;img src=x", ""))
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_report_is_saved_before_the_gate_stops_the_run(mvtec_tree: Path) -> None:
    (mvtec_tree / "bolt/train/good/000.png").write_bytes(b"")
    catalog = DataCatalog(
        {
            "raw_images": MemoryDataset(ImageFolder(mvtec_tree), copy_mode="assign"),
            "params:data": MemoryDataset(DataConfig(layout="mvtec")),
            "params:preprocessing": MemoryDataset(PreprocessConfig()),
            "params:validation": MemoryDataset(LIMITS),
            "validation_report": MemoryDataset(),
            "validation_report_html": MemoryDataset(),
            "validated_manifest": MemoryDataset(),
        }
    )
    with pytest.raises(DataError, match=r"data validation failed:\nimage_decodes"):
        SequentialRunner().run(create_pipeline(), catalog)
    assert catalog.load("validation_report")["success"] is False
    assert "image_decodes" in catalog.load("validation_report_html")
    assert not catalog.exists("validated_manifest")


def test_real_data_pass(real_data: Callable[[str], Path]) -> None:
    for name in ("mvtec", "crackforest"):
        manifest, report, _ = checked(real_data(name))
        assert report["success"] is True
        assert len(gate(manifest, report)) == len(manifest)


def test_masks_beside_images_stop_the_run_with_one_example_a_folder(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    bolt = mvtec_tree / "bolt"
    for i in range(3):
        make.mask(bolt / "train" / "good" / f"{i:03d}_GT.png", value=100 + i)
    make.mask(bolt / "test" / "scratch" / "000-mask.png", value=90)
    manifest, report, _ = checked(mvtec_tree)
    assert len(failures(report)["no_mask_among_images"]) == 4
    message = refusal(manifest, report)
    assert "bolt/train/good/000_GT.png (and 2 more in this folder): by its name a mask" in message
    assert "bolt/test/scratch/000-mask.png: by its name a mask" in message
    assert "data.exclude: ['*_GT.png']" in message
    assert message.count("_GT.png") == 2
    found = failures(checked(mvtec_tree, exclude=["*_GT.png", "*-mask.png"])[1])
    assert "no_mask_among_images" not in found


def test_linked_files_are_counted_with_the_cure(mvtec_tree: Path) -> None:
    mask = mvtec_tree / "bolt" / "ground_truth" / "scratch" / "000_mask.png"
    mask.rename(mvtec_tree.parent / "mask.png")
    mask.symlink_to(mvtec_tree.parent / "mask.png")
    train = mvtec_tree / "bolt" / "train" / "good"
    train.rename(mvtec_tree.parent / "good")
    train.symlink_to(mvtec_tree.parent / "good")
    manifest, report, _ = checked(mvtec_tree)
    found = failures(report)
    assert len(found.pop("no_links")) == 31
    assert found == {}  # the mask lies where it should
    message = refusal(manifest, report)
    assert re.search(r"no_links, 31 of .*data\.acquire folder.*cache\.type copy", message)


def test_the_log_ends_with_a_table_and_what_was_left_out(
    mvtec_tree: Path, make: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    make.image(mvtec_tree / "bolt" / "train" / "good" / "@eaDir" / "000.png", 0)
    (mvtec_tree / "Thumbs.db").touch()
    exclude = [{"path": "*/good/000.png", "reason": "dirty lens"}]
    manifest, report, html = checked(mvtec_tree, exclude=exclude)
    caplog.clear()
    caplog.set_level("INFO")
    gate(manifest, report)
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    columns = ["category", "train", "val", "calibration", "test good", "test defective"]
    assert re.split(r" {2,}", lines[1]) == [*columns, "excluded good"]
    counts = report["categories"]["bolt"]
    assert lines[2].split()[0] == "bolt"
    assert lines[2].split()[1] == str(counts["train"]["good"])
    assert lines[2].split()[-3:] == ["3", "3", "2"]
    assert (
        "left out: 2 images by data.exclude, the first is bolt/test/good/000.png (dirty lens)"
        in lines
    )
    assert any(line.startswith("left out: 2 files and folders of the operating") for line in lines)
    assert lines[-1] == f"report: {LIMITS.html}"
    assert "Thumbs.db" in html


def test_nothing_to_see_in_an_image_is_told_by_file(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    good, test = mvtec_tree / "bolt/train/good", mvtec_tree / "bolt/test/good"
    nearly = np.full((40, 48), 127, np.uint8)
    nearly[::2, ::3], nearly[0, 0] = 128, 250  # rounding, and a hot pixel
    Image.new("L", (48, 40)).save(good / "black.png")
    Image.fromarray(nearly).save(good / "nearly.png")
    Image.new("L", (48, 40), 255).save(test / "white.png")
    picture = Image.open(good / "000.png")
    for name, alpha in {"unused.png": 0, "all_but.png": 10}.items():
        Image.merge("LA", [picture, Image.new("L", (48, 40), alpha)]).save(good / name)
    indexed = picture.convert("P")
    indexed.save(good / "palette.png", transparency=bytes(256))
    _, report, _ = checked(mvtec_tree)
    told = failures(report)
    assert told["image_not_blank"] == [f"bolt/train/good/{n}.png" for n in ("black", "nearly")]
    assert told["test_image_not_blank"] == ["bolt/test/good/white.png"]
    names = ("all_but", "palette", "unused")
    assert told["image_decodes"] == [f"bolt/train/good/{name}.png" for name in names]
    assert report["success"] is False
    for name in ("black", "nearly", *names):
        (good / f"{name}.png").unlink()
    _, report, _ = checked(mvtec_tree)
    assert (list(failures(report)), report["success"]) == (["test_image_not_blank"], True)


def test_copies_of_a_picture_count_once(mvtec_tree: Path) -> None:
    good = mvtec_tree / "bolt/train/good"
    picture = Image.open(good / "000.png")
    for path in sorted(good.glob("*.png"))[1:]:
        path.unlink()
    for level in range(10):
        picture.save(good / f"{level}.png", compress_level=level)
        picture.save(good / f"{level}.webp", lossless=True, quality=level * 10)
    picture.save(good / "again.bmp")
    manifest, report, _ = checked(mvtec_tree)
    fitted = manifest[manifest["path"].str.startswith("bolt/train")]
    assert set(fitted["split"]) == {"train"}  # equal pictures share their split
    assert failures(report)["enough_train_images"] == ["bolt"]


def test_a_picture_saved_anew_in_another_category_or_under_another_label(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    make.category(mvtec_tree, "nut", seed=3)
    Image.open(mvtec_tree / "nut/train/good/000.png").save(mvtec_tree / "bolt/train/good/x.bmp")
    anew = mvtec_tree / "bolt/test/scratch/000.png"
    Image.open(mvtec_tree / "bolt/test/good/000.png").save(anew, compress_level=0)
    manifest, report, _ = checked(mvtec_tree)
    told = failures(report)
    assert told["one_category"] == ["nut/train/good/000.png"]
    message = refusal(manifest, report)
    assert "bolt/test/good/000.png" in message
    assert "bolt/test/scratch/000.png" in message


def test_masks_that_mark_most_or_are_not_turned(mvtec_tree: Path) -> None:
    truth, test = mvtec_tree / "bolt/ground_truth/scratch", mvtec_tree / "bolt/test/scratch"
    Image.eval(Image.open(truth / "000_mask.png"), lambda v: 255 - v).save(truth / "000_mask.png")
    for number, (size, turn) in enumerate([((48, 40), 6), ((40, 40), 3)], start=1):
        exif = Image.Exif()
        exif[0x0112] = turn
        path = test / f"00{number}.png"
        Image.open(path).resize(size).save(path, exif=exif)
        mask = truth / f"00{number}_mask.png"
        Image.open(mask).resize(size).save(mask)
    _, report, _ = checked(mvtec_tree)
    told = failures(report)
    assert told["mask_not_most"] == ["bolt/test/scratch/000.png"]
    assert told["mask_turned"] == ["bolt/test/scratch/001.png", "bolt/test/scratch/002.png"]
    assert told["mask_size"] == ["bolt/test/scratch/001.png"]
    sideways, upside_down = (one["detail"] for one in offenders(report, "mask_turned"))
    assert "fits the image before it is turned" in sideways
    assert "lies on the image as it is turned" in upside_down
    Image.open(truth / "000_mask.png").convert("RGB").save(truth / "000_mask.webp", quality=60)
    (truth / "000_mask.webp").rename(truth / "000_mask.png")
    assert failures(checked(mvtec_tree)[1])["mask_lossless"] == ["bolt/test/scratch/000.png"]


def test_how_many_pixels_are_read_is_a_setting(mvtec_tree: Path) -> None:
    _, report, _ = checked(mvtec_tree, max_pixels=48 * 40 - 1)
    told = offenders(report, "image_decodes")
    assert len(told) == 37
    assert "48x40 pixels, more than the 1,919 of data.max_pixels" in told[0]["detail"]
    assert checked(mvtec_tree, max_pixels=48 * 40)[1]["success"] is True
