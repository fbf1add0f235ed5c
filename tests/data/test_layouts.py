"""What each layout finds, and what it says of other data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.data.files import touch

from decodiff_pipeline.data.images import ImageFolder, read_mask
from decodiff_pipeline.data.layouts import Layout, Record, get_layout, layout_names
from decodiff_pipeline.data.manifest import DataConfig, build_manifest, count_table
from decodiff_pipeline.errors import ConfigurationError, DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace


def told(layout: str, root: Path, category: str) -> dict[str, tuple[object, ...]]:
    return {
        record.path: (record.split, record.label, record.defect_type, record.mask_path)
        for record in get_layout(layout).records(root, category)
    }


def test_the_layouts_are_found_by_name() -> None:
    assert set(layout_names()) >= {"mvtec", "btad", "visa", "folder", "elpv"}
    with pytest.raises(ConfigurationError, match=r"'mvtech'.*mvtec"):
        get_layout("mvtech")


def test_a_new_layout_is_one_class(tmp_path: Path) -> None:
    class FlatLayout(Layout):
        name = "flat_of_this_test"
        expects = "files"

        def categories(self, root: Path) -> list[str]:
            return ["all"]

        def records(self, root: Path, category: str) -> list[Record]:
            return [Record(category, None, "good", "good", path.name) for path in root.iterdir()]

    touch(tmp_path, "a.png")
    assert told("flat_of_this_test", tmp_path, "all") == {"a.png": (None, "good", "good", None)}


def test_mvtec(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "screw/Train/Good/000.png",
        "screw/test/good/000.png",
        "screw/test/thread_top/000.png",
        "screw/test/thread_top/001.png",
        "screw/Ground_truth/thread_top/000_mask.png",
        "screw/license.txt",
        "plain/train/good/000.png",
        "plain/test/broken/000.png",
        "notes/readme.txt",
        ".cache/train/good/000.png",
    )
    assert get_layout("mvtec").categories(tmp_path) == ["plain", "screw"]
    mask, defect = "screw/Ground_truth/thread_top/{}_mask.png", ("test", "defective", "thread_top")
    assert told("mvtec", tmp_path, "screw") == {
        "screw/Train/Good/000.png": (None, "good", "good", None),
        "screw/test/good/000.png": ("test", "good", "good", None),
        "screw/test/thread_top/000.png": (*defect, mask.format("000")),
        # the second has no mask, and the record says where it should be
        "screw/test/thread_top/001.png": (*defect, mask.format("001")),
    }
    assert told("mvtec", tmp_path, "plain")["plain/test/broken/000.png"][3] is None


def test_mvtec_says_so_when_train_holds_defects(tmp_path: Path) -> None:
    touch(tmp_path, "screw/train/good/0.png", "screw/train/bent/0.png")
    assert told("mvtec", tmp_path, "screw")["screw/train/bent/0.png"][:2] == ("train", "defective")


def test_btad_has_masks_without_suffix_in_either_format_and_folders_in_any_case(
    tmp_path: Path,
) -> None:
    touch(
        tmp_path,
        "01/train/ok/0000.bmp",
        "01/Test/ok/0000.bmp",
        "01/Test/KO/0000.bmp",
        "01/Test/KO/0001.bmp",
        "01/Ground_Truth/Ko/0000.png",
        "01/Ground_Truth/Ko/0001.bmp",
    )
    assert get_layout("btad").categories(tmp_path) == ["01"]
    assert told("btad", tmp_path, "01") == {
        "01/train/ok/0000.bmp": (None, "good", "good", None),
        "01/Test/ok/0000.bmp": ("test", "good", "good", None),
        "01/Test/KO/0000.bmp": ("test", "defective", "ko", "01/Ground_Truth/Ko/0000.png"),
        "01/Test/KO/0001.bmp": ("test", "defective", "ko", "01/Ground_Truth/Ko/0001.bmp"),
    }


VISA = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
"""


def visa_table(root: Path, text: str) -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_text(text)


def test_visa_follows_its_table(tmp_path: Path) -> None:
    visa_table(tmp_path, VISA)
    assert get_layout("visa").categories(tmp_path) == ["candle", "pcb1"]
    images, mask = "candle/Data/Images", "candle/Data/Masks/Anomaly/000.png"
    assert told("visa", tmp_path, "candle") == {
        f"{images}/Normal/0000.JPG": (None, "good", "good", None),
        f"{images}/Normal/0001.JPG": ("test", "good", "good", None),
        f"{images}/Anomaly/000.JPG": ("test", "defective", "anomaly", mask),
    }


def test_visa_table_errors_name_the_line_and_the_column(tmp_path: Path) -> None:
    visa_table(tmp_path, VISA.replace("candle,test,anomaly", "candle,test,odd"))
    with pytest.raises(DataError, match=r"1cls\.csv, line 4: label 'odd'"):
        told("visa", tmp_path, "candle")
    visa_table(tmp_path, VISA.replace("mask\n", "masque\n"))
    with pytest.raises(DataError, match="no column mask"):
        get_layout("visa").categories(tmp_path)


def test_visa_masks_of_small_integers_and_paths_that_leave_the_root(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    root = tmp_path / "raw"
    images = root / "candle" / "Data"
    make.image(images / "Images" / "Normal" / "0000.JPG", 1)
    make.image(images / "Images" / "Normal" / "0001.JPG", 2)
    make.image(images / "Images" / "Anomaly" / "000.JPG", 3)
    make.mask(images / "Masks" / "Anomaly" / "000.png", value=2)
    make.image(tmp_path / "outside.png", 4)
    visa_table(root, VISA.replace("pcb1/Data/Images/Normal/0000.JPG", "../outside.png"))
    rows = build_manifest(ImageFolder(root), DataConfig(layout="visa")).set_index("path")
    assert rows.loc["candle/Data/Images/Anomaly/000.JPG", "mask_pixels"] == 64
    assert "leaves the data folder" in rows.loc["../outside.png", "error"]
    assert rows.loc["../outside.png", "sha256"] == ""


def test_folder_with_defects_masks_and_folders_in_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cap/good/monday/0.png",
        "cap/good/0.png",
        "cap/Test_Good/1.png",
        "cap/dent/monday/0.png",
        "cap/dent/0.png",
        "cap/stain/0.png",
        "cap/Masks/Dent/monday/0.png",
        "cap/Masks/Dent/0_mask.bmp",
        "cup/good/0.jpg",
        "other/0.png",
    )
    assert get_layout("folder").categories(tmp_path) == ["cap", "cup"]
    assert told("folder", tmp_path, "cap") == {
        "cap/good/0.png": (None, "good", "good", None),
        "cap/good/monday/0.png": (None, "good", "good", None),
        "cap/Test_Good/1.png": ("test", "good", "good", None),
        "cap/dent/0.png": ("test", "defective", "dent", "cap/Masks/Dent/0_mask.bmp"),
        "cap/dent/monday/0.png": ("test", "defective", "dent", "cap/Masks/Dent/monday/0.png"),
        "cap/stain/0.png": ("test", "defective", "stain", None),
    }


def test_folder_with_good_images_only_is_one_category(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    root = tmp_path / "washers"
    for i in range(40):
        make.image(root / "good" / f"{i}.png", i)
    manifest = build_manifest(ImageFolder(root), DataConfig(layout="folder"))
    assert set(manifest["category"]) == {"washers"}
    assert set(manifest["split"]) == {"train", "val", "calibration"}


def test_folder_keeps_good_images_for_test_where_there_are_defects(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    for i in range(40):
        make.image(tmp_path / "cap" / "good" / f"{i}.png", i)
    make.image(tmp_path / "cap" / "dent" / "0.png", 100)
    config = DataConfig(layout="folder")
    counts = count_table(build_manifest(ImageFolder(tmp_path), config))["cap"]
    assert counts["test"]["good"] > 0
    make.image(tmp_path / "cap" / "test_good" / "0.png", 101)
    counts = count_table(build_manifest(ImageFolder(tmp_path), config))["cap"]
    assert counts["test"]["good"] == 1


def test_links_to_folders_are_not_silently_missed(tmp_path: Path) -> None:
    touch(tmp_path, "cap/good/0.png", "elsewhere/1.png")
    (tmp_path / "cap" / "good" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"more is a link"):
        told("folder", tmp_path, "cap")


def elpv_table(root: Path, rows: list[tuple[str, str]]) -> None:
    lines = [f"images/cell{i:04d}.png  {p}  {kind}" for i, (p, kind) in enumerate(rows)]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def test_elpv_sends_every_fifth_good_cell_of_a_type_to_test(tmp_path: Path) -> None:
    rows = [("0.0", "mono"), ("1.0", "mono"), ("0.0", "poly"), ("0.3333333333333333", "mono")]
    elpv_table(tmp_path, rows * 10)
    assert get_layout("elpv").categories(tmp_path) == ["mono", "poly"]
    cells = told("elpv", tmp_path, "mono")
    good = [split for split, label, _, _ in cells.values() if label == "good"]
    assert good == ["test", None, None, None, None] * 2
    others = {row for row in cells.values() if row[1] != "good"}
    assert others == {
        ("test", "defective", "defective", None),
        ("test", "uncertain", "uncertain_33", None),
    }


@pytest.mark.parametrize(
    "row", [("0.5", "mono"), ("high", "mono"), ("nan", "mono"), ("inf", "mono"), ("1", "")]
)
def test_elpv_table_errors_name_the_line(tmp_path: Path, row: tuple[str, str]) -> None:
    elpv_table(tmp_path, [("1.0", "mono"), row])
    with pytest.raises(DataError, match=r"labels\.csv, line 2"):
        get_layout("elpv").categories(tmp_path)


@pytest.mark.parametrize("layout", ["mvtec", "btad", "visa", "folder", "elpv"])
def test_a_missing_root_and_an_empty_one_say_what_to_put_where(tmp_path: Path, layout: str) -> None:
    config = DataConfig(layout=layout)
    with pytest.raises(DataError, match=r"nowhere does not exist.*expects") as caught:
        build_manifest(ImageFolder(tmp_path / "nowhere"), config)
    assert get_layout(layout).expects in str(caught.value)
    with pytest.raises(DataError, match="no category found"):
        build_manifest(ImageFolder(tmp_path), config)


@pytest.mark.parametrize(
    ("folder", "category", "train", "good", "defective"),
    [
        ("mvtec", "toothbrush", 48, 12, 30),
        ("crackforest", "pavement", 97, 36, 188),
        pytest.param("magnetic_tile", "magnetic_tile", 761, 191, 388, marks=pytest.mark.slow),
    ],
)
def test_mvtec_on_real_data(
    real_data: Callable[[str], Path],
    folder: str,
    category: str,
    train: int,
    good: int,
    defective: int,
) -> None:
    images = ImageFolder(real_data(folder))
    manifest = build_manifest(images, DataConfig(layout="mvtec"))
    assert set(manifest["category"]) == {category}
    assert count_table(manifest)[category]["test"] == {"good": good, "defective": defective}
    assert (manifest["split"] != "test").sum() == train
    assert (manifest["error"] == "").all()
    assert (manifest["mask_error"] == "").all()
    masked = manifest[manifest["mask_path"].notna()]
    assert len(masked) == defective
    assert (masked["mask_width"] == masked["width"]).all()
    assert (masked["mask_height"] == masked["height"]).all()
    assert masked["mask_pixels"].between(1, masked["width"] * masked["height"] - 1).all()


@pytest.mark.parametrize(
    ("layout", "file", "fits"),
    [
        ("btad", "cap/train/good/0.png cap/ground_truth/dent/0_mask.png", "mvtec"),
        ("mvtec_loco", "cap/train/good/0.png cap/ground_truth/dent/0_mask.png", "mvtec"),
        ("mvtec", "cap/train/ok/0.png cap/test/ko/0.png", "btad"),
        ("mvtec", "cap/train/good/0.png cap/ground_truth/dent/0/000.png", "mvtec_loco"),
        ("mvtec_ad2", "cap/train/good/0.png cap/ground_truth/dent/0/000.png", "mvtec_loco"),
        ("mvtec_loco", "cap/train/good/0.png cap/test_public/good/0.png", "mvtec_ad2"),
        ("btad", "cap/train/good/0.png cap/test_public/good/0.png", "mvtec_ad2"),
    ],
)
def test_a_category_of_another_layout_names_it(
    tmp_path: Path, layout: str, file: str, fits: str
) -> None:
    touch(tmp_path, *file.split())
    with pytest.raises(DataError, match=rf"set data\.layout to {fits}\."):
        get_layout(layout).categories(tmp_path)


def loco(root: Path, make: SimpleNamespace) -> Path:
    base = root / "bag"
    for i in range(30):
        make.image(base / "train" / "good" / f"{i:03}.png", i)
    for i in range(8):
        make.image(base / "validation" / "good" / f"{i:03}.png", 100 + i)
    make.image(base / "test" / "good" / "000.png", 200)
    make.image(base / "test" / "logical_anomalies" / "000.png", 201)
    truth = base / "ground_truth" / "logical_anomalies" / "000"
    make.mask(truth / "000.png")
    second = np.zeros((40, 48), np.uint8)
    second[10:20, 10:20] = 254
    Image.fromarray(second).save(truth / "001.png")
    return base


def test_loco_unites_masks_and_keeps_its_validation_images_apart(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    loco(tmp_path, make)
    with pytest.raises(DataError, match=r"the layout 'mvtec_loco' finds bag there"):
        build_manifest(ImageFolder(tmp_path), DataConfig(layout="folder"))
    manifest = build_manifest(ImageFolder(tmp_path), DataConfig(layout="mvtec_loco"))
    counts = count_table(manifest)["bag"]
    assert counts["train"] == {"good": 30}
    assert counts["val"]["good"] + counts["calibration"]["good"] == 8
    assert counts["test"] == {"defective": 1, "good": 1}
    row = manifest[manifest["label"] == "defective"].iloc[0]
    assert row["mask_path"] == "bag/ground_truth/logical_anomalies/000"
    assert row["mask_pixels"] == 64 + 100 - 2 * 4  # the squares overlap
    assert ImageFolder(tmp_path).read_mask(row["mask_path"]).sum() == row["mask_pixels"]


def test_masks_of_one_image_must_agree_in_size(tmp_path: Path, make: SimpleNamespace) -> None:
    make.mask(tmp_path / "0" / "000.png")
    make.mask(tmp_path / "0" / "001.png", size=(20, 20))
    with pytest.raises(ImageError, match="48x40 and 20x20"):
        read_mask(tmp_path / "0", root=tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(ImageError, match="holds no mask"):
        read_mask(tmp_path / "1", root=tmp_path)


def test_mvtec_ad2(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "can/train/good/000_regular.png",
        "can/validation/good/000_regular.png",
        "can/test_public/good/000_regular.png",
        "can/test_public/bad/000_overexposed.png",
        "can/test_public/ground_truth/bad/000_overexposed_mask.png",
        "can/test_private/000_regular.png",
        "can/test_private_mixed/000_mixed.png",
    )
    assert get_layout("mvtec_ad2").categories(tmp_path) == ["can"]
    mask = "can/test_public/ground_truth/bad/000_overexposed_mask.png"
    assert list(told("mvtec_ad2", tmp_path, "can").values()) == [
        ("train", "good", "good", None),
        ("held_out", "good", "good", None),
        ("test", "defective", "bad", mask),
        ("test", "good", "good", None),
    ]
