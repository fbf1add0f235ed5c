"""Renders the validation report as text for the terminal and as a self-contained HTML page."""

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

THUMBNAIL = 112  # longer side in pixels
MAX_THUMBNAILS = 12  # failed rows of a check with thumbnails
MAX_ROWS = 200  # failed rows of a check, or excluded files of a reason, on the page
MAX_EXAMPLES = 8  # examples of a check in the terminal
# Parts in which messages of one kind differ: paths, numbers, the first bytes of a file.
VARIABLE_PARTS = re.compile(r"b'[^']*'|b\"[^\"]*\"|\S*[/\\]\S*|\S*\d\S*")


def render(report: dict[str, Any], images: ImageFolder) -> str:
    """Render a report as HTML with escaped values and embedded thumbnails."""
    checks = [
        check | {"offenders": _with_thumbnails(check["offenders"][:MAX_ROWS], images)}
        for check in report["checks"]
    ]
    return render_page(
        "data_validation.html.j2",
        **report | {"checks": checks},
        splits=SPLITS,
        listed=MAX_ROWS,
    )


def _with_thumbnails(
    offenders: Sequence[dict[str, str]], images: ImageFolder
) -> list[dict[str, Any]]:
    """Add thumbnails of the image and of its mask or duplicate to the first offenders."""
    rows = []
    for number, offender in enumerate(offenders):
        keys = ("path", "related") if number < MAX_THUMBNAILS else ()
        uris = {key: _thumbnail(images, offender[key], stretch=key == "related") for key in keys}
        pictures = [{"uri": uri, "path": offender[key]} for key, uri in uris.items() if uri]
        rows.append(offender | {"pictures": pictures})
    return rows


def _thumbnail(images: ImageFolder, path: str, *, stretch: bool) -> str:
    """A small PNG as a data URI; "" if the file cannot be read.

    `stretch` scales the grey levels to 0…255, because a mask of small integers would look black.
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
    """Describe failed checks: a line with name, numbers and description, then examples.

    There is one example for each folder and kind of failure, up to `MAX_EXAMPLES`.
    """
    lines = []
    for check in checks:
        lines.append(f"{check['name']}, {check['failed']} of {check['checked']}: "
                     f"{check['description']}")  # fmt: skip
        groups = _by_folder_and_kind(check["offenders"])
        lines += [f"  {_example(group)}" for group in groups[:MAX_EXAMPLES]]
        if len(groups) > MAX_EXAMPLES:
            lines.append(f"  and {len(groups) - MAX_EXAMPLES} more folders or kinds of failure")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """A table of image counts by category, split and label, and lines on images left out."""
    categories = report["categories"]
    columns = sorted(
        {
            (split, label)
            for splits in categories.values()
            for split, labels in splits.items()
            for label in labels
        },
        key=_column_order,
    )
    rows = [["category", *map(_heading, columns)]]
    for name, splits in categories.items():
        counts = [splits.get(split, {}).get(label, 0) for split, label in columns]
        rows.append([name, *(f"{count:,}" for count in counts)])
    lines = [f"{report['images']:,} images of the layout '{report['layout']}'", text_table(rows)]
    lines += [
        f"left out: {len(entry['paths']):,} images by data.exclude, the first is "
        f"{entry['paths'][0]} ({entry['reason'] or 'no reason given'})"
        for entry in report["exclusions"]
    ]
    lines += [
        f"left out: {entry['count']:,} {entry['what']}, the first is {entry['first']}"
        for entry in report["left_out"]
    ]
    failed = [
        f"{check['name']} {check['failed']:,}" for check in report["checks"] if not check["success"]
    ]
    lines.append(f"checks not passed: {', '.join(failed) or 'none'}")
    return "\n".join([*lines, f"report: {report['html']}"])


def _by_folder_and_kind(offenders: Sequence[dict[str, str]]) -> list[list[dict[str, str]]]:
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for offender in offenders:
        path = offender["path"]
        folder = str(PurePosixPath(path).parent) if path else offender["category"]
        kind = VARIABLE_PARTS.sub("", offender["detail"])
        groups.setdefault((folder, kind), []).append(offender)
    return list(groups.values())


def _example(group: Sequence[dict[str, str]]) -> str:
    path, detail = group[0]["path"], group[0]["detail"].rstrip(".")
    if not path:
        return f"{group[0]['category']} {detail}"
    related = group[0]["related"]
    if related and related not in detail:
        detail += f" ({related})"
    more = f" (and {len(group) - 1:,} more in this folder)" if len(group) > 1 else ""
    root, separator, _ = detail.partition(f"/{path} ")
    if separator and " " not in root:  # a read error, which begins with the absolute path
        detail = detail.removeprefix(f"{root}{separator}").replace(f"{root}/", "")
    if detail.startswith(("is ", "has ")):
        return f"{path} {detail}{more}"
    return f"{path}{more}: {detail}"


def _column_order(column: tuple[str, str]) -> tuple[int, bool, str]:
    split, label = column
    return SPLITS.index(split), label != "good", label


def _heading(column: tuple[str, str]) -> str:
    split, label = column
    return split if label == "good" and split in SPLITS[:3] else f"{split} {label}"
