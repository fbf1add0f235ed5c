"""Reader of a table of reviewed labels: a person's verdicts on images that a model scored."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.data.decoding import decode, suffix_of
from decodiff_pipeline.data.file_names import nfc, same_name
from decodiff_pipeline.data.images import read_bytes
from decodiff_pipeline.data.layouts.base import GOOD_WORDS, MASK_WORDS
from decodiff_pipeline.data.listing import find_files
from decodiff_pipeline.data.masks import parse_mask
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.errors import DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VERDICTS = {"false_alarm": False, "good": False, "miss": True, "defective": True}  # → defective
COLUMNS = ("category", "verdict", "path", "image_sha256", "defect_type", "mask")
DEFECT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = GOOD_WORDS | MASK_WORDS | {"test_good"}  # folder names with another meaning
MAX_LISTED = 10  # problems in one error message


@dataclass(frozen=True)
class Reviewed:
    """A row of the table and its image."""

    line: int  # line number in the table; the header is line 1
    category: str
    defective: bool  # the verdict
    defect_type: str  # "" for good images and where the table has none
    image: Path
    sha256: str  # of the file
    suffix: str  # of the file format, detected from the content
    mask: Path | None  # ground-truth mask
    mask_suffix: str  # as `suffix`; "" without a mask
    mask_sha256: str  # of the mask file; "" without a mask


def read_labels(table: Path, images: Path) -> tuple[list[Reviewed], list[str]]:
    """Read the table and every image that it lists.

    Args:
        table: CSV or Parquet file with the columns ``category``, ``verdict``, and ``path``
            (relative to ``images``) or ``image_sha256`` (as in a request log). ``defect_type`` and
            ``mask`` are optional.
        images: Folder of the images, such as the folder of a request log.

    Returns:
        The valid rows, without repetitions of an image, and one error message for each other row.

    Raises:
        DataError: The table cannot be read, lacks a column or is empty, or ``images`` is not a
            folder.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder: name the folder that the images are in.")
    found: dict[str, Reviewed] = {}
    problems: list[str] = []
    rows = _rows(table)
    by_sha256 = _index(images) if any(row["image_sha256"] for _, row in rows) else {}
    for line, row in rows:
        try:
            one = _read_row(line, row, images, by_sha256)
        except DataError as error:  # includes ImageError
            problems.append(f"line {line}: {error}")
            continue
        before = found.setdefault(one.sha256, one)
        if _label(before) != _label(one):
            problems.append(
                f"line {line}: {one.image} is {_describe(one)} here and {_describe(before)} in "
                f"line {before.line}: keep the line that is right."
            )
    return list(found.values()), problems


def refuse(table: Path, problems: Sequence[str]) -> None:
    """Raise a DataError that lists the first `MAX_LISTED` problems, if there are any."""
    if problems:
        more = len(problems) - MAX_LISTED
        listed = [*problems[:MAX_LISTED], *([f"and {more} more"] if more > 0 else [])]
        raise DataError(f"{table}, nothing was added:\n  " + "\n  ".join(listed))


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the table as (line number, row); each row has all columns of `COLUMNS`."""
    table = read_table(file, COLUMNS)
    names = set(table.columns)
    if not {"category", "verdict"} <= names or not {"path", "image_sha256"} & names:
        raise DataError(
            f"{file} has the columns {', '.join(sorted(names))}: it needs category, verdict, and "
            "path or image_sha256."
        )
    if not table.rows:
        raise DataError(f"{file} names no image: write a line for each reviewed one.")
    return [(line, {name: row.get(name, "") for name in COLUMNS}) for line, row in table.rows]


def _index(images: Path) -> dict[str, Path]:
    """SHA-256 → path of the images of a request log, whose file names are their SHA-256."""
    return {path.stem: path for path in find_files(images).images}


def _read_row(line: int, row: dict[str, str], images: Path, index: dict[str, Path]) -> Reviewed:
    if row["verdict"] not in VERDICTS:
        raise DataError(f"the verdict is {row['verdict']!r}: use one of {', '.join(VERDICTS)}.")
    defective = VERDICTS[row["verdict"]]
    for name in ("defect_type", "mask"):
        if row[name] and not defective:
            raise DataError(f"it has a {name} and the verdict {row['verdict']}: only one is right.")
    if row["defect_type"] and (
        not DEFECT_TYPE.fullmatch(row["defect_type"]) or same_name(row["defect_type"]) in RESERVED
    ):
        raise DataError(
            f"{row['defect_type']!r} cannot be the name of a type of defect: use letters, digits, "
            "'.', '_', '-', and no word for good images or masks."
        )
    path = _image_path(row, images, index)
    data = read_bytes(path, root=images)
    sha256 = hashlib.sha256(data).hexdigest()
    if row["image_sha256"] and row["image_sha256"] != sha256:
        raise DataError(f"{path} has the SHA-256 {sha256}, not {row['image_sha256']}.")
    image = decode(data, path).eight_bit(path)
    mask = images / table_path(row["mask"], images) if row["mask"] else None
    drawn = _checked_mask(mask, images, image.size) if mask is not None else b""
    return Reviewed(
        line=line,
        category=nfc(row["category"]),
        defective=defective,
        defect_type=row["defect_type"],
        image=path,
        sha256=sha256,
        suffix=suffix_of(data),
        mask=mask,
        mask_suffix=suffix_of(drawn) if drawn else "",
        mask_sha256=hashlib.sha256(drawn).hexdigest() if drawn else "",
    )


def _image_path(row: dict[str, str], images: Path, index: dict[str, Path]) -> Path:
    if row["path"]:
        return images / table_path(row["path"], images)
    if not row["image_sha256"]:
        raise DataError("it has neither a path nor an image_sha256.")
    if row["image_sha256"] not in index:
        raise DataError(
            f"no image {row['image_sha256']}.* is kept in {images}: the server keeps images where "
            "DECODIFF_LOG_IMAGES says so."
        )
    return index[row["image_sha256"]]


def _checked_mask(mask: Path, images: Path, size: tuple[int, int]) -> bytes:
    """Read a mask file and check its size and that it is not empty; returns the bytes."""
    data = read_bytes(mask, root=images)
    defect = parse_mask(decode(data, mask).image).defect
    if defect.shape != size[::-1]:
        raise ImageError(
            f"{mask} is {defect.shape[1]}x{defect.shape[0]} and its image {size[0]}x{size[1]}: "
            "draw the mask on the image itself."
        )
    if not defect.any():
        raise ImageError(f"{mask} is empty: draw the defect, non-zero on zero.")
    return data


def _label(one: Reviewed) -> tuple[str, bool, str, str]:
    return one.category, one.defective, one.defect_type, one.mask_sha256


def _describe(one: Reviewed) -> str:
    kind = (one.defect_type or "defective") if one.defective else "good"
    return f"{one.category}, {kind}" + (f", mask {one.mask.name}" if one.mask else "")
