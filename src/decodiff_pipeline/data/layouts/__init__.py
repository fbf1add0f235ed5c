"""The layouts by name. A new one is a file in this package with a `Layout` subclass in it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.layouts.base import Layout, Place, Record
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Layout", "Place", "Record", "get_layout", "layout_names"]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)


def layout_names() -> tuple[str, ...]:
    """Returns the names that `data.layout` may have, sorted."""
    return tuple(sorted(layout.name for layout in _layouts()))


def get_layout(name: str) -> Layout:
    """Returns the layout called `name`.

    Raises:
        ConfigurationError: There is none.
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
