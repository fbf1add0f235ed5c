"""Reviewed images become part of a data set, or nothing does."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.data.files import contents

from decodiff_pipeline.data.add_reviewed import add, main, plan, summary
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def log(tmp_path: Path, make: SimpleNamespace) -> list[Path]:
    """20 images as a request log keeps them."""
    paths = []
    for i in range(20):
        image = make.image(tmp_path / "new.png", seed=9000 + i)
        path = tmp_path / "log" / "images" / digest(image)[:2] / f"{digest(image)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(image.rename(path))
    return paths


def table(folder: Path, *lines: str) -> Path:
    path = folder / "reviewed.csv"
    path.write_text("category,verdict,path,image_sha256,defect_type,mask\n" + "\n".join(lines))
    return path


def split_of(root: Path, layout: str, image: Path) -> tuple[str, str, str]:
    """Split, label and type of defect by which the next run knows an image."""
    manifest = build_manifest(ImageFolder(root), DataConfig(layout=layout))
    (row,) = manifest[manifest["sha256"] == digest(image)].itertuples()
    assert not row.error
    assert not row.mask_error
    return row.split, row.label, row.defect_type


def test_mvtec_takes_false_alarms_and_misses(
    mvtec_tree: Path, tmp_path: Path, log: list[Path], make: SimpleNamespace
) -> None:
    make.mask(tmp_path / "log" / "mask.png")
    false_alarms = [f"bolt,false_alarm,,{path.stem},," for path in log[1:]]
    labels = table(
        tmp_path,
        f"bolt,miss,images/{log[0].parent.name}/{log[0].name},,crack,mask.png",
        *false_alarms,
        false_alarms[0],  # said twice, and the same
    )
    layout = get_layout("mvtec")
    before = contents(mvtec_tree)
    what = plan(labels, tmp_path / "log", mvtec_tree, layout)
    assert contents(mvtec_tree) == before
    add(what, mvtec_tree)
    after = contents(mvtec_tree)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 20 + 1

    assert split_of(mvtec_tree, "mvtec", log[0]) == ("test", "defective", "crack")
    found = [split_of(mvtec_tree, "mvtec", path) for path in log[1:]]
    assert {label for _, label, _ in found} == {"good"}
    tested = sum(split == "test" for split, _, _ in found)
    assert 0 < tested < len(found) / 2

    again = plan(labels, tmp_path / "log", mvtec_tree, layout)
    assert (again.additions, again.present) == ((), 20)


@pytest.mark.parametrize("layout", ["folder", "btad", "elpv"])
def test_other_layouts_know_the_added_images(
    layout: str, tmp_path: Path, log: list[Path], make: SimpleNamespace
) -> None:
    root = tmp_path / "raw"
    good, bad = {
        "folder": ("mono/good", "mono/crack"),
        "btad": ("mono/train/ok", "mono/test/ko"),
        "elpv": ("images", "images"),
    }[layout]
    for i in range(30):
        make.image(root / good / f"good{i}.png", seed=i)
    make.image(root / bad / "bad.png", seed=7)
    if layout == "elpv":
        cells = [f"images/good{i}.png  0.0  mono" for i in range(30)]
        (root / "labels.csv").write_text("\n".join([*cells, "images/bad.png  1.0  mono"]))
    config = DataConfig(layout=layout)
    before = build_manifest(ImageFolder(root), config)
    labels = table(
        tmp_path,
        f"mono,defective,,{log[0].stem},,",
        *[f"mono,good,,{path.stem},," for path in log[1:8]],
    )
    for _ in range(2):
        add(plan(labels, tmp_path / "log", root, get_layout(layout)), root)
    after = build_manifest(ImageFolder(root), config)
    assert len(after) == len(before) + 8
    split, label, defect_type = split_of(root, layout, log[0])
    assert (split, label) == ("test", "defective")
    assert defect_type == {"folder": "crack", "btad": "ko", "elpv": "defective"}[layout]
    assert "train" in {split_of(root, layout, path)[0] for path in log[1:8]}
    joined = before.merge(after, on="path")
    assert (joined["split_x"] == joined["split_y"]).all()  # nothing else has moved


def test_every_bad_line_is_told_and_nothing_is_written(
    mvtec_tree: Path, tmp_path: Path, log: list[Path], make: SimpleNamespace
) -> None:
    known = mvtec_tree / "bolt" / "train" / "good" / "000.png"
    (tmp_path / "log" / "known.png").write_bytes(known.read_bytes())
    (tmp_path / "log" / "text.png").write_text("no image")
    make.mask(tmp_path / "log" / "small.png", size=(20, 20))
    names = [path.relative_to(tmp_path / "log").as_posix() for path in log]
    labels = table(
        tmp_path,
        f"bolt,good,{names[0]},,,",
        f"bolt,miss,{names[0]},,crack,",
        f"wood,good,{names[1]},,,",
        f"bolt,fine,{names[2]},,,",
        "bolt,good,known.png,,,",
        "bolt,good,text.png,,,",
        "bolt,good,../reviewed.csv,,,",
        f"bolt,good,,{'0' * 64},,",
        f"bolt,miss,{names[3]},,crack,",
        f"bolt,miss,{names[4]},,../crack,",
        f"bolt,miss,{names[5]},,crack,small.png",
        f"bolt,good,{names[6]},,crack,",
    )
    before = contents(mvtec_tree)
    with pytest.raises(DataError) as caught:
        plan(labels, tmp_path / "log", mvtec_tree, get_layout("mvtec"))
    assert contents(mvtec_tree) == before
    said = str(caught.value)
    assert "nothing was added" in said
    assert "and 1 more" in said
    for sentence in (
        "line 3: ", "bolt, crack here and bolt, good in line 2",
        "line 4: the category 'wood' is not in", "line 5: the verdict is 'fine'",
        "line 6: ", "in the data set already, as bolt/train/good/000.png",
        "line 7: ", "is no readable PNG", "line 8: ", "leaves the data folder",
        "is kept in", "line 11: '../crack' cannot be the name", "draw the mask on the image itself",
    ):  # fmt: skip
        assert sentence in said
    with pytest.raises(DataError, match="line 10: the defects of bolt have masks"):
        plan(
            table(tmp_path, *[""] * 8, f"bolt,miss,{names[3]},,crack,"),
            tmp_path / "log",
            mvtec_tree,
            get_layout("mvtec"),
        )


def test_a_mask_without_a_place_in_the_data_set_is_told(
    tmp_path: Path, log: list[Path], make: SimpleNamespace
) -> None:
    root = tmp_path / "raw"
    make.image(root / "mono" / "good" / "0.png", 0)
    make.mask(tmp_path / "log" / "mask.png")
    labels = table(tmp_path, f"mono,miss,,{log[0].stem},crack,mask.png")
    what = plan(labels, tmp_path / "log", root, get_layout("folder"))
    assert "1 masks not copied, the first that of line 2" in summary(what, root, dry=True)


def test_two_masks_of_one_image_are_told(
    mvtec_tree: Path, tmp_path: Path, log: list[Path], make: SimpleNamespace
) -> None:
    for name, value in (("a.png", 255), ("b.png", 7)):
        make.mask(tmp_path / "log" / name, value=value)
    image = log[0].relative_to(tmp_path / "log").as_posix()
    lines = [f"bolt,miss,{image},,crack,{mask}" for mask in ("a.png", "b.png")]
    with pytest.raises(DataError, match=r"mask b\.png here and bolt, crack, mask a\.png in line 2"):
        plan(table(tmp_path, *lines), tmp_path / "log", mvtec_tree, get_layout("mvtec"))


def test_a_changed_mind_and_tables_that_will_not_do(
    mvtec_tree: Path, tmp_path: Path, log: list[Path]
) -> None:
    layout = get_layout("mvtec")
    for path in (mvtec_tree / "bolt" / "ground_truth").rglob("*.png"):
        path.unlink()
    for folder in ("scratch", ""):
        (mvtec_tree / "bolt" / "ground_truth" / folder).rmdir()
    labels = table(tmp_path, f"bolt,false_alarm,,{log[0].stem},,")
    add(plan(labels, tmp_path / "log", mvtec_tree, layout), mvtec_tree)
    labels = table(tmp_path, f"bolt,miss,,{log[0].stem},,")
    with pytest.raises(DataError, match="remove that image first"):
        plan(labels, tmp_path / "log", mvtec_tree, layout)
    for content, said in [
        ("", "is empty"),
        ("category,path\n", "needs category, verdict"),
        ("category,verdict,path\n", "names no image"),
    ]:
        labels.write_text(content)
        with pytest.raises(DataError, match=said):
            plan(labels, tmp_path / "log", mvtec_tree, layout)
    with pytest.raises(DataError, match="no category found"):
        plan(labels, tmp_path / "log", tmp_path / "nowhere", layout)


def test_the_command_tells_what_it_did_and_what_is_next(
    mvtec_tree: Path, tmp_path: Path, log: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = table(tmp_path, f"bolt,false_alarm,,{log[0].stem},,")
    command = ["--labels", str(labels), "--images", str(tmp_path / "log"), "--to", str(mvtec_tree)]
    command += ["--layout", "mvtec", "--test-share", "0"]
    main([*command, "--dry-run"])
    assert "1 images would be added" in capsys.readouterr().out
    main(command)
    said = capsys.readouterr().out
    assert "bolt/train/good: 1" in said
    assert f"dvc add {mvtec_tree}" in said
    main(command)
    assert "0 images added, 1 were there already" in capsys.readouterr().out
    labels.write_text("category,verdict,path\nbolt,good,nothing.png\n")
    done = subprocess.run(
        [sys.executable, "-m", "decodiff_pipeline.data.add_reviewed", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {labels}, nothing was added:\n  line 2: ")
