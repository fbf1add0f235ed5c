from __future__ import annotations

import hashlib
import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from decodiff_pipeline.data.duplicates import difference_hash, nearest_within, unpack
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import COLUMNS, DataConfig, build_manifest
from decodiff_pipeline.data.provenance import data_digest
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

MVTEC = DataConfig(layout="mvtec")


def test_a_row_an_image_with_what_is_in_the_file(mvtec_tree: Path, tmp_path: Path) -> None:
    manifest = build_manifest(ImageFolder(mvtec_tree), MVTEC)
    assert list(manifest.columns) == list(COLUMNS)
    assert len(manifest) == 37
    row = manifest.set_index("path").loc["bolt/test/scratch/001.png"]
    data = (mvtec_tree / "bolt/test/scratch/001.png").read_bytes()
    assert (row["width"], row["height"], row["mode"]) == (48, 40, "L")
    assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert row["mask_path"] == "bolt/ground_truth/scratch/001_mask.png"
    assert (row["mask_width"], row["mask_height"], row["mask_pixels"]) == (48, 40, 64)
    manifest.to_parquet(tmp_path / "manifest.parquet")
    again = pd.read_parquet(tmp_path / "manifest.parquet")
    pd.testing.assert_frame_equal(again, manifest, check_dtype=False)


def test_the_manifest_is_the_same_with_any_number_of_threads(mvtec_tree: Path) -> None:
    images = ImageFolder(mvtec_tree)
    one = build_manifest(images, DataConfig(layout="mvtec", workers=1))
    pd.testing.assert_frame_equal(
        one, build_manifest(images, DataConfig(layout="mvtec", workers=4))
    )


def test_a_renamed_image_keeps_its_split_and_a_copy_shares_it(mvtec_tree: Path) -> None:
    good = mvtec_tree / "bolt" / "train" / "good"
    before = build_manifest(ImageFolder(mvtec_tree), MVTEC).set_index("sha256")["split"]
    for path in sorted(good.iterdir()):
        path.rename(good / f"z{path.name}")
        shutil.copyfile(good / f"z{path.name}", good / f"copy_{path.name}")
    rows = build_manifest(ImageFolder(mvtec_tree), MVTEC)
    divided = rows[rows["split"] != "test"]
    assert len(divided) == 60
    assert (divided["split"].to_numpy() == before[divided["sha256"]].to_numpy()).all()


def test_a_category_without_good_images_gets_no_word_of_them(
    mvtec_tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(mvtec_tree / "bolt/test/good")
    build_manifest(ImageFolder(mvtec_tree), MVTEC)
    assert "go to test" in caplog.text
    caplog.clear()
    shutil.rmtree(mvtec_tree / "bolt/train/good")
    build_manifest(ImageFolder(mvtec_tree), MVTEC)
    assert "go to test" not in caplog.text


def test_unreadable_images_and_masks_are_rows_that_say_why(mvtec_tree: Path) -> None:
    base = mvtec_tree / "bolt"
    (base / "train/good/000.png").write_bytes(b"")
    (base / "ground_truth/scratch/000_mask.png").write_text("text")
    (base / "ground_truth/scratch/001_mask.png").unlink()
    (base / "ground_truth/scratch/002_mask.png").unlink()
    (base / "ground_truth/scratch/002_mask.png").symlink_to(base / "test/good/000.png")
    rows = build_manifest(ImageFolder(mvtec_tree), MVTEC).set_index("path")
    empty = rows.loc["bolt/train/good/000.png"]
    assert "is empty" in empty["error"]
    assert (empty["width"], empty["height"], empty["mode"], empty["sha256"]) == (0, 0, "", "")
    assert "no readable PNG" in rows.loc["bolt/test/scratch/000.png", "mask_error"]
    missing = rows.loc["bolt/test/scratch/001.png"]
    assert "has no mask" in missing["mask_error"]
    assert pd.isna(missing["mask_path"])
    assert "link" in rows.loc["bolt/test/scratch/002.png", "mask_error"]


def test_the_size_is_that_after_the_exif_orientation(tmp_path: Path, make: SimpleNamespace) -> None:
    path = make.image(tmp_path / "cap" / "good" / "0.jpg", 0, size=(48, 40))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(path).save(path, exif=exif)
    row = build_manifest(ImageFolder(tmp_path), DataConfig(layout="folder")).iloc[0]
    assert (row["width"], row["height"]) == (40, 48)


def test_categories_are_chosen_and_a_wrong_one_is_named_with_the_right_ones(
    mvtec_tree: Path, make: SimpleNamespace
) -> None:
    make.category(mvtec_tree, "nut", train=3, seed=7)
    images = ImageFolder(mvtec_tree)
    chosen = build_manifest(images, DataConfig(layout="mvtec", categories=("nut",)))
    assert set(chosen["category"]) == {"nut"}
    with pytest.raises(DataError, match=r"data\.categories names bold.*there are: bolt, nut"):
        build_manifest(images, DataConfig(layout="mvtec", categories=("bold", "nut")))


def test_the_reason_of_an_exclusion_is_kept(
    mvtec_tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exclude = (
        "bolt/train/good/001.png",
        {"path": "bolt/train/good/00*.png", "reason": "blurred <lens>"},
        {"path": "bolt/train/good/000.png", "reason": "a later one"},
        {"path": "nut/*", "reason": "none there"},
    )
    rows = build_manifest(ImageFolder(mvtec_tree), DataConfig(layout="mvtec", exclude=exclude))
    left_out = rows[rows["split"] == "excluded"]
    assert len(left_out) == 10
    assert set(left_out["excluded_because"]) == {"blurred <lens>"}
    assert set(rows[rows["split"] != "excluded"]["excluded_because"]) == {""}
    assert "10 images by 'bolt/train/good/00*.png': blurred <lens>" in caplog.text
    assert "'nut/*' matches no image" in caplog.text


def test_a_reason_changes_no_digest(mvtec_tree: Path) -> None:
    exclusions = (
        "bolt/train/good/00*.png",
        {"path": "bolt/train/good/00*.png", "reason": "blurred"},
    )
    plain, explained = (
        build_manifest(ImageFolder(mvtec_tree), DataConfig(layout="mvtec", exclude=(one,)))
        for one in exclusions
    )
    old = plain.drop(columns="excluded_because")
    assert data_digest(plain) == data_digest(explained) == data_digest(old)


def test_near_duplicates_are_close_and_other_images_far(
    make: SimpleNamespace, tmp_path: Path
) -> None:
    first = Image.open(make.image(tmp_path / "a.png", 1, size=(300, 200)))
    other = Image.open(make.image(tmp_path / "b.png", 2, size=(300, 200)))
    first.resize((150, 100)).save(tmp_path / "small.jpg", quality=60)
    noise = np.random.default_rng(0).normal(0, 3, (200, 300))
    grainy = Image.fromarray(np.clip(np.asarray(first) + noise, 0, 255).astype(np.uint8))
    close = [difference_hash(Image.open(tmp_path / "small.jpg")), difference_hash(grainy)]
    references = [difference_hash(other), difference_hash(first)]
    index, _ = nearest_within(unpack([*close, references[0]]), unpack(references), 12)
    assert index.tolist() == [1, 1, 0]
    assert nearest_within(unpack(references[:1]), unpack(references[1:]), 64)[0].tolist() == [-1]


@pytest.mark.parametrize("bits", [0, 3, 12, 40, 256])
@pytest.mark.parametrize("number", [0, 1, 30, 2000])
def test_the_nearest_image_is_that_of_a_search_through_all(bits: int, number: int) -> None:
    """Of groups of alike pictures; few hashes, and more bits than there are bands for, as well."""
    random = np.random.default_rng(number)
    groups = random.integers(0, 2, (max(1, number // 20), 256))

    def hashes(count: int) -> list[str]:
        differing = random.random((count, 256)) < random.uniform(0, 0.05, (count, 1))
        rows = groups[random.integers(len(groups), size=count)] ^ differing
        return list(dict.fromkeys(np.packbits(row).tobytes().hex() for row in rows))

    references, queries = hashes(number), hashes(100)
    found, alike = nearest_within(unpack(queries), unpack(references), bits)
    assert alike == 0 or bits > 3 or number < 100
    for query, index in zip(queries, found, strict=True):
        apart = [(int(query, 16) ^ int(other, 16)).bit_count() for other in references]
        nearest = min(apart, default=257)
        assert index == (apart.index(nearest) if nearest <= bits else -1)


def test_to_exclude_every_image_is_refused(mvtec_tree: Path) -> None:
    config = DataConfig(layout="mvtec", exclude=("bolt/train/*", "*/test/*"))
    with pytest.raises(DataError, match=r"data\.exclude leaves out every image"):
        build_manifest(ImageFolder(mvtec_tree), config)
