"""The layouts by name. Every `Layout` subclass in a module of this package is found."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.file_names import check_names, require_utf8
from decodiff_pipeline.data.layouts.base import Layout, Place, Record
from decodiff_pipeline.data.listing import without_system_files
from decodiff_pipeline.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Layout", "Place", "Record", "get_layout", "layout_names", "list_records"]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)


def layout_names() -> tuple[str, ...]:
    """Accepted values of `data.layout`, sorted."""
    return tuple(sorted(layout.name for layout in _layouts()))


def get_layout(name: str) -> Layout:
    """The layout called `name`.

    Raises:
        ConfigurationError: There is no such layout.
    """
    for layout in _layouts():
        if layout.name == name:
            return layout()
    raise ConfigurationError(
        f"data.layout is {name!r}, which does not exist: use one of {', '.join(layout_names())}."
    )


def _layouts(parent: Any = Layout) -> Iterator[type[Layout]]:
    for layout in parent.__subclasses__():
        yield layout
        yield from _layouts(layout)


def list_records(root: Path, layout: Layout, categories: Sequence[str] | None) -> list[Record]:
    """List the images of the selected categories, without system files.

    Args:
        categories: Names in Unicode normal form NFC; None for all categories.

    Raises:
        DataError: `root` does not exist, has no image in this layout, or lacks a selected
            category; a category name is not allowed; or a path is not UTF-8.
    """
    if not root.is_dir():
        raise layout.not_found_error(root, f"the raw data folder {root} does not exist")
    available = layout.categories(root)
    if not available:
        raise layout.not_found_error(root, f"no category found in {root}{_matching_layout(root)}")
    wanted = available if categories is None else categories
    if missing := sorted(set(wanted) - set(available)):
        raise DataError(
            f"data.categories names {', '.join(missing)}, not found in {root} by the layout "
            f"'{layout.name}'; there are: {', '.join(available)}."
        )
    check_names(wanted, root)
    records = [record for category in wanted for record in layout.records(root, category)]
    if not records:
        raise layout.not_found_error(root, f"no image found in {root}")
    for record in records:
        require_utf8(record.path, root)
        require_utf8(record.mask_path or "", root)
    return without_system_files(records, lambda record: record.path, root)


def _matching_layout(root: Path) -> str:
    """Part of a message: a layout that finds categories in `root`; empty for none."""
    for name in layout_names():
        try:
            found = get_layout(name).categories(root)
        except DataError:
            continue
        if found:
            return f" (the layout '{name}' finds {', '.join(found)} there)"
    return ""
