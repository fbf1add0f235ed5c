"""Adds reviewed images to a data set. All images are checked before the first is copied.

python -m decodiff_pipeline.data.add_reviewed --labels reviewed.csv --images /var/log/decodiff \
    --to data/01_raw/bolts --layout mvtec
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.data.layouts import get_layout, layout_names
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.data.reviewed_labels import Reviewed, read_labels, refuse
from decodiff_pipeline.data.tables import decoded
from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from decodiff_pipeline.data.layouts import Layout, Record
    from decodiff_pipeline.data.layouts.base import Place

TEST_SHARE = 0.2
UNNAMED = "reviewed"  # defect type, if the line names none and the category has not exactly one


@dataclass(frozen=True)
class Addition:
    """An image to add, and its place in the data set."""

    image: Reviewed
    place: Place


@dataclass(frozen=True)
class Plan:
    """The images to add, and the number of images that the data set already has."""

    additions: tuple[Addition, ...]
    present: int


def plan(
    labels: Path, images: Path, target: Path, layout: Layout, test_share: float = TEST_SHARE
) -> Plan:
    """Check every line and choose the place of each image; write nothing.

    Good images go to training. If the category has good test images, a random share of
    ``test_share`` goes to test instead, drawn from the SHA-256 of each file. The test metrics of
    the next model then show whether it still raises these false alarms.

    Raises:
        DataError: A line is invalid, `target` has no category, or the layout takes no additions.
    """
    categories = layout.categories(target)
    if not categories:
        raise layout.not_found_error(target, f"no category found in {target}")
    reviewed, problems = read_labels(labels, images)
    records = {name: list(layout.records(target, name)) for name in categories}
    present_as = _find_copies(reviewed, [one for some in records.values() for one in some], target)
    additions, present = [], 0
    for one in reviewed:
        if one.category not in records:
            known = ", ".join(categories)
            problems.append(
                f"line {one.line}: the category {one.category!r} is not in {target}, which has "
                f"{known}: correct it, or bring a new category in with good images for training."
            )
            continue
        place = _choose_place(one, target, layout, records[one.category], test_share)
        record = present_as.get(one.sha256)
        if record is not None and _was_added(record, one, place):
            present += 1
        elif record is not None:
            problems.append(
                f"line {one.line}: {one.image} is in the data set already, as {record.path} "
                f"({record.label}): take the line out, or remove that image first."
            )
        elif place.mask_path and one.mask is None:
            problems.append(
                f"line {one.line}: the defects of {one.category} have masks, and without one the "
                "validation would stop: draw it, and name it in the column mask."
            )
        else:
            additions.append(Addition(one, place))
    refuse(labels, problems)
    return Plan(tuple(additions), present)


def add(what: Plan, target: Path) -> None:
    """Copy the images into the data set; a second call completes an interrupted one.

    Raises:
        DataError: A file cannot be written.
    """
    lines: dict[str, list[str]] = {}
    try:
        for one in what.additions:
            if one.image.mask is not None and one.place.mask_path:
                mask = (target / one.place.mask_path).with_suffix(one.image.mask_suffix)
                _copy(one.image.mask, mask)
            _copy(one.image.image, target / one.place.path)
            if one.place.table:
                lines.setdefault(one.place.table, []).append(one.place.line)
        for table, added in lines.items():  # last, so that it lists no missing image
            text, encoding = decoded(target / table)
            newline = "\r\n" if "\r\n" in text else "\n"
            text = text if not text or text.endswith("\n") else text + newline
            text += "".join(f"{line}{newline}" for line in added)
            with replacing(target / table) as temporary:
                temporary.write_bytes(text.encode(encoding))
    except OSError as error:
        raise DataError(
            f"{target} could not be added to ({error}): make room or make it writable, and run "
            "this again, which goes on where it stopped."
        ) from error


def _choose_place(
    one: Reviewed, target: Path, layout: Layout, records: Sequence[Record], test_share: float
) -> Place:
    tested = any(record.split == "test" and record.label == GOOD for record in records)
    types = {record.defect_type for record in records if record.label == DEFECTIVE}
    defect_type = one.defect_type or (types.pop() if len(types) == 1 else UNNAMED)
    drawn = int(one.sha256[:8], 16) / 2**32 < test_share
    return layout.place(
        target,
        one.category,
        f"reviewed_{one.sha256[:16]}{one.suffix}",
        defect_type if one.defective else None,
        test=tested and drawn,
    )


def _find_copies(
    reviewed: Iterable[Reviewed], records: Iterable[Record], target: Path
) -> dict[str, Record]:
    """SHA-256 → record, for the files that are as large as one of the reviewed images."""
    sizes = {one.image.stat().st_size for one in reviewed}
    try:
        return {
            file_sha256(target / record.path): record
            for record in records
            if (target / record.path).is_file() and (target / record.path).stat().st_size in sizes
        }
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error


def _was_added(record: Record, one: Reviewed, place: Place) -> bool:
    """Whether an earlier run added this record for the same line."""
    defective = record.label == DEFECTIVE
    return (
        Path(record.path).name == Path(place.path).name
        and (record.category, defective) == (one.category, one.defective)
        and (not one.defect_type or Path(record.path).parent == Path(place.path).parent)
    )


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def summary(what: Plan, target: Path, *, dry: bool) -> str:
    """Text with the number of added images per folder and the commands to run next."""
    count, verb = len(what.additions), "would be added" if dry else "added"
    lines = [f"{target}: {count} images {verb}, {what.present} were there already"]
    folders = Counter(Path(one.place.path).parent.as_posix() for one in what.additions)
    lines += [f"  {folder}: {number}" for folder, number in sorted(folders.items())]
    unused = [one.image for one in what.additions if one.image.mask and not one.place.mask_path]
    if unused:
        lines.append(
            f"  {len(unused)} masks not copied, the first that of line {unused[0].line}: such "
            "defects have no folder of masks in this data set"
        )
    if count and not dry:
        environment = f" --env {target.name}" if Path("conf", target.name).is_dir() else ""
        lines += ["next:", f"  dvc add {target}", f"  kedro run{environment}"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with an error message and status 1 on a `DataError`."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.data.add_reviewed",
        description="Adds images that people have reviewed to a data set.",
    )
    parser.add_argument("--labels", type=Path, required=True, help="CSV, see docs/serving.md")
    parser.add_argument("--images", type=Path, required=True, help="the request log's folder")
    parser.add_argument("--to", type=Path, required=True, help="the data set, in data/01_raw")
    parser.add_argument("--layout", choices=layout_names(), required=True, help="its data.layout")
    parser.add_argument(
        "--test-share",
        type=float,
        default=TEST_SHARE,
        help="of the good images, where the category has good test images; default: %(default)s",
    )
    parser.add_argument("--dry-run", action="store_true", help="check, and write nothing")
    options = parser.parse_args(arguments)
    if not 0 <= options.test_share <= 1:
        sys.exit(f"error: --test-share is {options.test_share}; it must lie within 0…1")
    try:
        layout = get_layout(options.layout)
        what = plan(options.labels, options.images, options.to, layout, options.test_share)
        if not options.dry_run:
            add(what, options.to)
    except DataError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(summary(what, options.to, dry=options.dry_run))


if __name__ == "__main__":
    main()
