"""What goes wrong with the data sets of people, applied to sample data sets at random.

An oddity changes the files of a data set, and the rows where it changes what is right.
"""

from __future__ import annotations

import io
import os
import unicodedata
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tests.data.files import encoded
from tests.data.sample_data_sets import (
    KINDS,
    MIN_SIDE,
    PLACES,
    SIDE,
    DataSet,
    Photo,
    mask_values,
    picture,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SYSTEM = ("@eaDir/{n}/SYNOPHOTO_THUMB_XL.jpg", "._{n}", "Thumbs.db", "__MACOSX/{n}",
          "#recycle/{n}", "$RECYCLE.BIN/{n}", ".AppleDouble/{n}", ".ipynb_checkpoints/{n}",
          "desktop.ini", ".DS_Store", "lost+found/{n}")  # fmt: skip
BESIDE = ("{s}_mask.png", "{s}_GT.png", "{s}-mask.png", "mask_{s}.png", "{s}_label.png")
NAMES = ("a b", "a#1", "[1]", "it's", "100%", "-rf", "a..b", "café", "日本", "a,b", "a;b", "{x}",
         "a&b", "a!", "x" * 100, "a\\b", '"q"', "A", "a:b", "*", "🙂", "~", "a=b", "01", "null",
         "a\tb", "$HOME", "a|b")  # fmt: skip
WRONG = (".gif", ".txt", "", ".png.bak", ".jfif", ".PNG ", ".heic")
RIGHT = (".PNG", ".jpg", ".Jpeg", ".bmp", ".TIF", ".webp")


def system_file(data: DataSet, photo: Photo, which: int) -> None:
    """A system leaves something beside an image: it is no part of the data set."""
    name = SYSTEM[which % len(SYSTEM)].format(n=PurePosixPath(photo.path).name)
    data.files[str(PurePosixPath(photo.path).with_name("x").parent / name)] = encoded(picture(900))


def mask_beside(data: DataSet, photo: Photo, which: int) -> None:
    """A mask lies beside the image it was drawn on."""
    name = BESIDE[which % len(BESIDE)].format(s=photo.stem)
    path = PurePosixPath(photo.path).with_name(name).as_posix()
    data.files[path] = encoded(mask_values() * np.uint8(255))
    data.touched |= {path, photo.path}


def folder_case(data: DataSet, photo: Photo, which: int) -> None:
    """A folder of the layout is written in another case, for all of a category."""
    path = photo.mask_path if which % 4 == 0 and photo.mask_path else photo.path
    parts = PurePosixPath(path).parts
    own = {photo.category, photo.stem, "scratch", "logical_anomalies", "bad"}
    fixed = [part for part in parts[:-1] if part not in own]
    if not fixed:
        return
    old = fixed[which % len(fixed)]
    new = old.upper() if which % 2 else old.title() if old.islower() else old.lower()
    start = PurePosixPath(*parts[: parts.index(old)])
    data.touched |= {old, new}
    for name in list(data.files):
        below = PurePosixPath(name)
        if below.is_relative_to(start / old):
            data.move(name, (start / new / below.relative_to(start / old)).as_posix())
    in_table = data.layout in {"visa", "elpv"}
    for one in data.photos:
        for key in ("path", "mask_path"):
            below = PurePosixPath(getattr(one, key))
            if not in_table and below.is_relative_to(start / old):
                setattr(one, key, (start / new / below.relative_to(start / old)).as_posix())
            elif in_table and below.is_relative_to(start / old):
                data.touched.add(getattr(one, key))


def rename(data: DataSet, photo: Photo, stem: str, mask_stem: str | None = None) -> None:
    """Gives an image and its mask another stem."""
    old, path = photo.stem, PurePosixPath(photo.path)
    new = path.with_name(f"{stem}{path.suffix}").as_posix()
    data.move(photo.path, new)
    photo.path = new
    if photo.mask_path:
        place = PLACES[data.layout][3].format(c=photo.category, s=mask_stem or stem)
        if PurePosixPath(photo.mask_path).stem in {old, f"{old}_mask", "000"}:
            data.move(photo.mask_path, place)
            photo.mask_path = place


def odd_name(data: DataSet, photo: Photo, which: int) -> None:
    """A name with signs that shells, patterns or tables read otherwise."""
    names = {PurePosixPath(one.path).with_suffix("").as_posix() for one in data.photos}
    stem = NAMES[which % len(NAMES)]
    if PurePosixPath(photo.path).with_name(stem).as_posix() not in names:
        rename(data, photo, stem)


def other_normal_form(data: DataSet, photo: Photo, which: int) -> None:
    """A Mac writes the name of the image, another system that of the mask or of the table."""
    composed, decomposed = (unicodedata.normalize(form, "prüf") for form in ("NFC", "NFD"))
    if any(one.stem in {composed, decomposed} for one in data.photos):
        return
    pair = (composed, decomposed) if which % 2 else (decomposed, composed)
    rename(data, photo, *pair)
    if data.layout in {"visa", "elpv"}:
        photo.path = PurePosixPath(photo.path).with_name(f"{pair[1]}.png").as_posix()


def blank(data: DataSet, photo: Photo, which: int) -> None:
    """An image of one grey, as of a camera that failed."""
    grey = (0, 255, 128)[which % 3]
    data.files[photo.path] = encoded(np.full((SIDE, SIDE, 3), grey, np.uint8))
    data.told.add(photo.path)
    if photo.kind == "train" and data.layout != "elpv":  # which tests on some of its good images
        data.stopped.add(photo.path)


def unused_alpha(data: DataSet, photo: Photo, which: int) -> None:
    """An alpha channel that is zero or full everywhere, or half of it is."""
    alpha = np.zeros((SIDE, SIDE, 1), np.uint8) if which % 3 else np.full((SIDE, SIDE, 1), 255)
    alpha[: SIDE // 2] = 255 if which % 3 == 1 else alpha[: SIDE // 2]
    data.files[photo.path] = encoded(
        np.concatenate([picture(1000 + which), alpha], 2).astype(np.uint8)
    )
    data.touched.add(photo.path)


def inverted_mask(data: DataSet, photo: Photo, which: int) -> None:
    """White where there is no defect."""
    if photo.mask_path:
        data.files[photo.mask_path] = encoded((1 - mask_values()) * np.uint8(255))
        data.touched |= {photo.mask_path, photo.path}


def mask_encoding(data: DataSet, photo: Photo, which: int) -> None:
    """The same defect, written in another way."""
    if not photo.mask_path:
        return
    values = mask_values()
    palette = Image.fromarray(values, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    marked = np.repeat((values * np.uint8(255))[..., None], 3, 2)
    full = np.full((SIDE, SIDE, 1), 255, np.uint8)
    forms: list[NDArray[Any] | Image.Image] = [
        values, values * np.uint8(38), Image.fromarray(values * np.uint8(255)).convert("1"),
        palette, marked, np.concatenate([marked, full], 2), values.astype(np.uint16) * 65535,
        np.concatenate([values[..., None] * np.uint8(255), full], 2), marked * [1, 0, 0],
    ]  # fmt: skip
    form = forms[which % len(forms)]
    form = (
        form if isinstance(form, Image.Image) or form.dtype != np.int64 else form.astype(np.uint8)
    )
    data.files[photo.mask_path] = encoded(form)
    data.touched |= {photo.mask_path, photo.path}


def same_pixels(data: DataSet, photo: Photo, which: int) -> None:
    """An image is there twice, in other bytes: in train and test, or twice in train."""
    changed = data.touched | data.stopped | data.told
    others = [one for one in data.photos if one is not photo and one.category == photo.category]
    others = [one for one in others if one.path not in changed]
    if not others:
        return
    other = others[which % len(others)]
    with Image.open(io.BytesIO(data.files[photo.path])) as image:
        form = ("BMP", "TIFF", "PNG")[which % 3]
        data.files[other.path] = encoded(image.convert("RGB"), form)
        data.files[photo.path] = encoded(image.convert("RGB"), "PNG", optimize=True)
    data.touched |= {photo.path, other.path}
    if {photo.kind, other.kind} != {"test"} and {photo.kind, other.kind} != {"defect"}:
        data.told.add(f"{photo.path}\n{other.path}")
    pairs = [{"train", "test"}, {"train", "defect"}]
    if {photo.kind, other.kind} in pairs[data.layout == "elpv" :]:  # which chooses its test images
        data.stopped.add(f"{photo.path}\n{other.path}")


def too_small(data: DataSet, photo: Photo, which: int) -> None:
    """An image below the smallest side that is allowed."""
    side = 1 + which % (MIN_SIDE - 1)
    data.files[photo.path] = encoded(picture(1300 + which)[:side, : (SIDE, side)[which % 2]])
    data.stopped.add(photo.path)


def link(data: DataSet, photo: Photo, which: int) -> None:
    """An image or its mask is a link, to a file in the data set or to none."""
    path = photo.mask_path if which % 3 == 0 and photo.mask_path else photo.path
    target = os.path.relpath(data.photos[0].path, PurePosixPath(path).parent)
    data.links[path] = "/nowhere/a.png" if which % 2 or path == data.photos[0].path else target
    data.stopped.add(f"{path}\n{PurePosixPath(path).parent}" if path.endswith("/000.png") else path)


def wrong_suffix(data: DataSet, photo: Photo, which: int) -> None:
    """The suffix says something else than the content, or nothing."""
    suffix = (*WRONG, *RIGHT)[which % len(WRONG + RIGHT)]
    path = PurePosixPath(photo.path)
    beside = [one for one in data.files if PurePosixPath(one).parent == path.parent]
    if any(one.endswith(tuple(filter(None, WRONG))) or "." not in one for one in beside):
        suffix = RIGHT[which % len(RIGHT)]  # of several in a folder the first is named
    new = path.with_name(f"{path.stem}{suffix}").as_posix()
    data.move(photo.path, new)
    if suffix in RIGHT or data.layout in {"visa", "elpv"}:
        photo.path = new


ODDITIES: tuple[Callable[[DataSet, Photo, int], None], ...] = (
    system_file, mask_beside, folder_case, odd_name, other_normal_form, blank, unused_alpha,
    inverted_mask, mask_encoding, same_pixels, too_small, link, wrong_suffix,
)  # fmt: skip


def data_set(
    layout: str,
    categories: tuple[tuple[str, int, int, int, bool], ...],
    oddities: tuple[tuple[int, int, int], ...] = (),
) -> DataSet:
    """Makes a data set.

    Args:
        layout: Its name.
        categories: Name, numbers of train, good test and defective images, whether with masks.
        oddities: Numbers of the oddity, of the image it befalls, and of its variant.
    """
    data = DataSet(layout)
    for name, *counts, mask in categories:
        for kind, count in zip(KINDS, counts, strict=True):
            for i in range(count):
                data.add(name, kind, f"{name.partition(' ')[0]}_{kind}{i}", mask=mask)
    changed: set[int] = set()
    late = (same_pixels, folder_case, link)  # after what renames and writes files
    for oddity, image, which in sorted(
        oddities, key=lambda one: late.index(ODDITIES[one[0]]) if ODDITIES[one[0]] in late else -1
    ):
        position = image % len(data.photos)
        if position not in changed:  # one each, so that what is right stays plain
            changed.add(position)
            ODDITIES[oddity % len(ODDITIES)](data, data.photos[position], which)
    data.photos = [replace(one) for one in data.photos]
    return data
