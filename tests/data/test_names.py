"""Names that no user chose, names of masks, of folders, in other spellings and encodings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.data.files import touch

from decodiff_pipeline.data.acquire import acquire_folder, file_sizes
from decodiff_pipeline.data.file_names import is_system, masks_by_name, on_disk, printable
from decodiff_pipeline.data.images import ImageFolder, read_image
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.listing import find_files
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.monitoring.source import RecentSource

if TYPE_CHECKING:
    from types import SimpleNamespace

NFC, NFD = (unicodedata.normalize(form, "Gehäuse") for form in ("NFC", "NFD"))
LITTER = (
    "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/0.png",
    "@Recycle/0.png",
    "$recycle.bin/0.png",
    "__MACOSX/0.png",
    "lost+found/0.png",
    "System Volume Information/0.png",
    ".Trash-1000/files/0.png",
    ".ipynb_checkpoints/0-checkpoint.png",
    "._0.png",
    "Thumbs.db",
)


def paths(layout: str, root: Path) -> dict[str, str]:
    found = get_layout(layout)
    return {
        record.path: record.defect_type
        for category in found.categories(root)
        for record in found.records(root, category)
    }


def test_names_of_the_system_in_any_case() -> None:
    system = ["@EADIR", "._cell.png", "THUMBS.DB", "Desktop.ini", "@SynoFinder-log", ".thumbnails"]
    chosen = ["#1", "@home", "recycled paper", "found", "thumb.png", "$good"]
    assert [name for name in system + chosen if is_system(name)] == system


@pytest.mark.parametrize(
    ("layout", "folders"),
    [
        ("folder", [".", "cap", "cap/good", "cap/dent", "cap/masks", "cap/masks/dent"]),
        ("mvtec", [".", "cap", "cap/train", "cap/train/good", "cap/test", "cap/test/dent"]),
        ("btad", [".", "cap", "cap/train/ok", "cap/test/ko", "cap/ground_truth/ko"]),
        ("mvtec_loco", [".", "cap", "cap/train/good", "cap/test/dent", "cap/ground_truth/dent/0"]),
        ("mvtec_ad2", [".", "cap", "cap/validation/good", "cap/test_public/bad"]),
    ],
)
def test_no_layout_takes_what_the_system_left(
    tmp_path: Path, layout: str, folders: list[str]
) -> None:
    touch(tmp_path, *(f"{folder}/0.png" for folder in folders if folder.count("/") > 0))
    before = paths(layout, tmp_path)
    assert before
    touch(tmp_path, *(f"{folder}/{name}" for folder in folders for name in LITTER))
    assert paths(layout, tmp_path) == before
    assert len(find_files(tmp_path).system) == len(folders) * len(LITTER)


def test_inference_and_monitoring_take_photographs_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "cap/0.png", "cap/0_GT.png", *(f"cap/{name}" for name in LITTER))
    assert [item.path for item in InferenceSource(tmp_path).items(None)] == ["cap/0.png"]
    assert len(caplog.records) == 2
    assert f"{len(LITTER)} files and folders of the operating system" in caplog.text
    assert "1 images are left out" in caplog.text
    assert "cap/0_GT.png" in caplog.text
    assert list(RecentSource(tmp_path).rows(None)["path"]) == ["cap/0.png"]


def test_tables_that_name_files_of_the_system(
    tmp_path: Path, make: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("path,category\n0.png,cap\n._0.png,cap\n@eaDir/0.png,cap\n1.png,cap\n")
    assert [item.path for item in InferenceSource(table).items(None)] == ["0.png", "1.png"]
    assert list(RecentSource(table).rows(None)["path"]) == ["0.png", "1.png"]
    assert "2 rows that name files of the operating system" in caplog.text
    make.image(tmp_path / "elpv" / "images" / "0.png", 0)
    labels = tmp_path / "elpv" / "labels.csv"
    labels.write_text("images/0.png 0.0 mono\nimages/._0.png 0.0 mono\n")
    manifest = build_manifest(ImageFolder(labels.parent), DataConfig(layout="elpv"))
    assert list(manifest["path"]) == ["images/0.png"]


def test_acquire_leaves_out_what_the_system_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "from"
    touch(source, "good/0.png", "good/readme.txt", *(f"good/{name}" for name in LITTER))
    target = acquire_folder(source, "parts", tmp_path / "raw")
    assert set(file_sizes(target)) == {"good/0.png", "good/readme.txt"}
    assert not find_files(target).system
    assert "@eaDir" in caplog.text or "#recycle" in caplog.text
    touch(target, "good/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg")
    assert acquire_folder(source, "parts", tmp_path / "raw") == target


def test_masks_are_told_by_their_names() -> None:
    beside = ["0_GT", "0_mask", "0-mask", "0.label", "0_seg", "0_anno", "0gt", "mask_0", "0_Mask_1"]
    files = [f"good/{name}.png" for name in beside]
    assert masks_by_name([*files, "good/0.jpg"]) == dict.fromkeys(files, "good/0.jpg")
    alone = ["0.png", "1_mask.png", "test/0_mask.png", "0_scratch.png", "00.png"]
    assert masks_by_name(alone) == {}


@pytest.mark.parametrize(
    ("layout", "file", "meant"),
    [
        ("folder", "cap/goods/0.png", "good"),
        ("folder", "cap/OK/0.png", "good"),
        ("folder", "cap/good_2/0.png", "good"),
        ("folder", "cap/good - Copy/0.png", "good"),
        ("folder", "cap/test good/0.png", "test_good"),
        ("folder", "cap/mask/dent/0.png", "masks"),
        ("folder", "cap/Ground_Truth/dent/0.png", "masks"),
        ("mvtec", "cap/trian/good/0.png", "train"),
        ("mvtec", "cap/train/normal/0.png", "good"),
        ("mvtec", "cap/test/goood/0.png", "good"),
        ("mvtec", "cap/groundtruth/dent/0_mask.png", "ground_truth"),
        ("mvtec", "cap/masks/dent/0_mask.png", "ground_truth"),
        ("btad", "cap/test/good/0.png", "ok"),
        ("btad", "cap/test/NG/0.png", "ko"),
    ],
)
def test_a_folder_with_nearly_a_known_name_stops(
    tmp_path: Path, layout: str, file: str, meant: str
) -> None:
    sound = {"folder": "good", "mvtec": "train/good", "btad": "train/ok"}
    if file != "cap/goods/0.png":  # without any good folder too
        touch(tmp_path, f"cap/{sound[layout]}/9.png")
    touch(tmp_path, file)
    with pytest.raises(DataError, match=f"'{meant}' seems to be meant: rename it") as caught:
        get_layout(layout).categories(tmp_path)
    named = str(caught.value).split()[2:]
    assert (tmp_path / file).is_relative_to(" ".join(named[: named.index("has")]))


@pytest.mark.parametrize(
    "defect", ["gold", "hood", "wood", "broken", "marks", "mass", "bad", "food", "goo", "label"]
)
def test_types_of_defects_keep_their_names(tmp_path: Path, defect: str) -> None:
    touch(tmp_path, "cap/good/0.png", f"cap/{defect}/0.png")
    assert paths("folder", tmp_path)[f"cap/{defect}/0.png"] == defect


def test_folders_that_differ_by_case_only(tmp_path: Path) -> None:
    touch(tmp_path, "cap/Good/0.png", "cap/good/0.png")
    with pytest.raises(DataError, match=r"cap holds 'Good' and 'good', which differ only by case"):
        get_layout("folder").categories(tmp_path)


def test_names_in_both_normal_forms_are_one(tmp_path: Path, make: SimpleNamespace) -> None:
    stem = NFD.lower()
    for i in range(30):
        make.image(tmp_path / NFD / "good" / f"{stem}_{i}.png", i)
    make.image(tmp_path / NFD / "dent" / f"{stem}.png", 50)
    make.mask(tmp_path / NFD / "masks" / "dent" / f"{NFC.lower()}.png")
    config = DataConfig(layout="folder", categories=(NFC,), exclude=[f"*/good/{NFC.lower()}_0.png"])
    manifest = build_manifest(ImageFolder(tmp_path), config)
    assert set(manifest["category"]) == {NFC}
    assert (manifest["split"] == "excluded").sum() == 1
    assert list(manifest.loc[manifest["label"] == "defective", "mask_pixels"]) == [64]
    written = f"{NFC}/dent/{NFC.lower()}.png"
    assert on_disk(tmp_path, written) == f"{NFD}/dent/{stem}.png"
    assert read_image(tmp_path / written, root=tmp_path).size == (48, 40)


def test_two_names_that_differ_in_normal_form_only(tmp_path: Path) -> None:
    touch(tmp_path, f"cap/good/{NFC}.png", f"cap/good/{NFD}.png")
    with pytest.raises(DataError, match=r"'Geha\\u0308use.png' and 'Geh\\xe4use.png', which"):
        list(get_layout("folder").records(tmp_path, "cap"))


def test_names_that_are_not_utf8(tmp_path: Path, make: SimpleNamespace) -> None:
    root = tmp_path / "raw"
    make.image(root / "cap" / "good" / "0.png", 0)
    odd = os.fsencode(root / "cap" / "good") + b"/st\xfcck.png"
    shutil.copyfile(root / "cap" / "good" / "0.png", odd)
    calls = (
        lambda: build_manifest(ImageFolder(root), DataConfig(layout="folder")),
        lambda: InferenceSource(root).items(None),
        lambda: RecentSource(root).rows(None),
        lambda: acquire_folder(root, "copy", tmp_path / "copies"),
    )
    for call in calls:
        with pytest.raises(DataError, match=r"st\\xfcck\.png in .* is not UTF-8: rename") as caught:
            call()
        str(caught.value).encode()
    assert printable(os.fsdecode(odd)).endswith(r"st\xfcck.png")


def test_a_locale_that_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, f"cap/{NFC}.png")
    program = f"""
import sys
from pathlib import Path
from decodiff_pipeline.data.images import read_image
from decodiff_pipeline.data.listing import list_images_to_score
assert sys.getfilesystemencoding() == "ascii"
root = Path({str(tmp_path)!r})
for call in (lambda: list_images_to_score(root), lambda: read_image(root / "Geh\\xe4use.png")):
    try:
        call()
    except Exception as error:
        print(ascii(str(error)))
"""
    ascii_locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | ascii_locale,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(told) == 2
    for line in told:
        assert "use.png in " in line
        assert "the locale is not UTF-8: set LC_ALL=C.UTF-8 or PYTHONUTF8=1." in line


def test_what_is_not_readable_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "cap/good/0.png", "cap/dent/0.png", "lost+found/0.png")
    listed = os.scandir

    def refusing(path: str | Path) -> os.ScandirIterator[str]:
        if Path(path).name in {"dent", "lost+found"}:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"cap/dent cannot be listed \(Permission denied\)"):
        find_files(tmp_path)
    os.rename(tmp_path / "cap" / "dent", tmp_path / "cap" / "bent")
    assert paths("folder", tmp_path) == {"cap/good/0.png": "good", "cap/bent/0.png": "bent"}
