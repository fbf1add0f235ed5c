"""The validation report as text for the terminal, and as one self-contained HTML page."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.splits import SPLITS
from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.reporting.formatting import text_table
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import thumbnail_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from decodiff_pipeline.data.images import ImageFolder

THUMBNAIL = 112  # pixels, the longer side
PICTURED = 12  # offenders of a check that are shown as pictures
LISTED = 200  # offenders of a check, or files left out for a reason; the JSON report has all
SHOWN = 8  # folders and kinds of a check; the report has all
# What differs between complaints of one kind: paths, numbers, the bytes that a file begins with.
PARTICULARS = re.compile(r"b'[^']*'|b\"[^\"]*\"|\S*[/\\]\S*|\S*\d\S*")


def render(report: dict[str, Any], images: ImageFolder) -> str:
    """Renders a report as HTML, values escaped, thumbnails embedded."""
    checks = [
        check | {"offenders": _with_pictures(check["offenders"][:LISTED], images)}
        for check in report["checks"]
    ]
    return render_page(
        "data_validation.html.j2",
        **report | {"checks": checks},
        splits=SPLITS,
        listed=LISTED,
    )


def _with_pictures(
    offenders: Sequence[dict[str, str]], images: ImageFolder
) -> list[dict[str, Any]]:
    """Adds thumbnails of the image and of its mask or double to the first offenders."""
    shown = []
    for number, one in enumerate(offenders):
        keys = ("path", "related") if number < PICTURED else ()
        uris = {key: _thumbnail(images, one[key], stretch=key == "related") for key in keys}
        pictures = [{"uri": uri, "path": one[key]} for key, uri in uris.items() if uri]
        shown.append(one | {"pictures": pictures})
    return shown


def _thumbnail(images: ImageFolder, path: str, *, stretch: bool) -> str:
    """A small PNG as a data URI, "" where nothing can be read.

    With `stretch` the grey levels fill 0…255: a mask of small integers would look black.
    """
    from PIL import ImageOps

    if not path:
        return ""
    try:
        image = images.read(path)
    except ImageError:
        return ""
    return thumbnail_uri(ImageOps.autocontrast(image) if stretch else image, THUMBNAIL)


def complaints(checks: Iterable[dict[str, Any]]) -> str:
    """Tells what failed: a paragraph a check, in it one example for each folder and kind.

    Returns:
        Lines; the first of each check has its name, the numbers and what was expected.
    """
    lines = []
    for check in checks:
        lines.append(f"{check['name']}, {check['failed']} of {check['checked']}: "
                     f"{check['description']}")  # fmt: skip
        groups = _by_folder_and_kind(check["offenders"])
        lines += [f"  {_example(group)}" for group in groups[:SHOWN]]
        if len(groups) > SHOWN:
            lines.append(f"  and {len(groups) - SHOWN} more folders or kinds")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """Counts the images by category, split and label, and says what was left out and why.

    Returns:
        An aligned table and a line for each thing that was left out.
    """
    categories = report["categories"]
    columns = sorted(
        {(split, label) for by in categories.values() for split, of in by.items() for label in of},
        key=_column_order,
    )
    rows = [["category", *map(_heading, columns)]]
    for name, by in categories.items():
        counts = [by.get(split, {}).get(label, 0) for split, label in columns]
        rows.append([name, *(f"{count:,}" for count in counts)])
    lines = [f"{report['images']:,} images of the layout '{report['layout']}'", text_table(rows)]
    lines += [
        f"left out: {len(one['paths']):,} images by data.exclude, the first is {one['paths'][0]} "
        f"({one['reason'] or 'no reason given'})"
        for one in report["exclusions"]
    ]
    lines += [
        f"left out: {one['count']:,} {one['what']}, the first is {one['first']}"
        for one in report["left_out"]
    ]
    failed = [f"{one['name']} {one['failed']:,}" for one in report["checks"] if not one["success"]]
    lines.append(f"checks not passed: {', '.join(failed) or 'none'}")
    return "\n".join([*lines, f"report: {report['html']}"])


def _by_folder_and_kind(offenders: Sequence[dict[str, str]]) -> list[list[dict[str, str]]]:
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for one in offenders:
        folder = str(PurePosixPath(one["path"]).parent) if one["path"] else one["category"]
        kind = PARTICULARS.sub("", one["detail"])
        groups.setdefault((folder, kind), []).append(one)
    return list(groups.values())


def _example(group: Sequence[dict[str, str]]) -> str:
    path, detail = group[0]["path"], group[0]["detail"].rstrip(".")
    if not path:
        return f"{group[0]['category']} {detail}"
    related = group[0]["related"]
    if related and related not in detail:
        detail += f" ({related})"
    more = f" (and {len(group) - 1:,} more in this folder)" if len(group) > 1 else ""
    root, named, _ = detail.partition(f"/{path} ")
    if named and " " not in root:  # an error of a reader, which begins with the absolute path
        detail = detail.removeprefix(f"{root}{named}").replace(f"{root}/", "")
    if detail.startswith(("is ", "has ")):
        return f"{path} {detail}{more}"
    return f"{path}{more}: {detail}"


def _column_order(column: tuple[str, str]) -> tuple[int, bool, str]:
    split, label = column
    return SPLITS.index(split), label != "good", label


def _heading(column: tuple[str, str]) -> str:
    split, label = column
    return split if label == "good" and split in SPLITS[:3] else f"{split} {label}"
