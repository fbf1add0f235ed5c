from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pytest
from tests.data.files import contents

from decodiff_pipeline.data.acquire import acquire_elpv, acquire_folder, main
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the files of elpv-dataset, found as `elpv_dataset`."""
    folder = tmp_path / "site" / "elpv_dataset"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "images" / "cell0001.png").write_bytes(b"one")
    (folder / "data" / "labels.csv").write_text("images/cell0001.png 0.0 mono\n")
    spec = ModuleSpec("elpv_dataset", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return folder / "data"


def test_elpv_is_copied_whole_and_once(package: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    target = acquire_elpv(raw)
    assert target == raw / "elpv"
    assert contents(target) == contents(package)
    before = (target / "labels.csv").stat()
    acquire_elpv(raw)
    after = (target / "labels.csv").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert os.listdir(raw) == ["elpv"]


def test_a_target_that_differs_is_left_alone(package: Path, tmp_path: Path) -> None:
    target = acquire_elpv(tmp_path / "raw")
    (target / "images" / "cell0001.png").write_bytes(b"changed by hand")
    with pytest.raises(DataError, match="differs"):
        acquire_elpv(tmp_path / "raw")
    assert (target / "images" / "cell0001.png").read_bytes() == b"changed by hand"


def test_a_copy_that_fails_leaves_nothing_and_a_killed_one_is_cleared(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    (raw / ".elpv.partial-killed" / "elpv").mkdir(parents=True)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(DataError, match="No space left"):
            acquire_elpv(raw)
    assert os.listdir(raw) == []
    assert contents(acquire_elpv(raw)) == contents(package)


def test_too_small_a_disk_is_noticed_before_copying(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="GB free and the images need"):
        acquire_elpv(tmp_path / "raw")


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_of_ones_own_is_copied_or_hard_linked_without_links(
    tmp_path: Path, link: bool
) -> None:
    source = tmp_path / "camera"
    (source / "good").mkdir(parents=True)
    (source / "good" / "0.png").write_bytes(b"zero")
    (tmp_path / "1.png").write_bytes(b"one")
    (source / "good" / "1.png").symlink_to(tmp_path / "1.png")
    target = acquire_folder(source, "parts", tmp_path / "raw", link=link)
    assert contents(target) == {"good/0.png": b"zero", "good/1.png": b"one"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    shared = (target / "good/0.png").stat().st_ino == (source / "good/0.png").stat().st_ino
    assert shared is link


def test_bad_sources_and_names_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "camera"
    source.mkdir()
    with pytest.raises(DataError, match="holds no files"):
        acquire_folder(source, "parts", tmp_path / "raw")
    (source / "0.png").write_bytes(b"zero")
    for name in ("../parts", "a/b", "", ".hidden", "two words"):
        with pytest.raises(DataError, match="cannot be the name of a data set"):
            acquire_folder(source, name, tmp_path / "raw")
    with pytest.raises(DataError, match="is not a folder"):
        acquire_folder(tmp_path / "nowhere", "parts", tmp_path / "raw")
    with pytest.raises(DataError, match="lies in the other"):
        acquire_folder(tmp_path, "parts", tmp_path / "raw")
    (source / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        acquire_folder(source, "parts", tmp_path / "raw")
    assert not (tmp_path / "raw" / "parts").exists()


def test_the_command_ends_with_one_sentence(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--raw", str(tmp_path / "raw"), "elpv"])
    assert "2 files" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--raw", str(tmp_path / "raw"), "folder", str(tmp_path / "nowhere"), "parts"])
    assert "nowhere is not a folder" in str(caught.value.code)
