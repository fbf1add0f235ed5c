"""The layouts by name. A new one is a file in this package with a `Layout` subclass in it."""

from __future__ import annotations

import importlib
import pkgutil

from decodiff_pipeline.data.layouts.base import Layout, Place, Record
from decodiff_pipeline.errors import ConfigurationError

__all__ = ["Layout", "Place", "Record", "get_layout", "layout_names"]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)


def layout_names() -> tuple[str, ...]:
    """Returns the names that `data.layout` may have, sorted."""
    return tuple(sorted(layout.name for layout in Layout.__subclasses__()))


def get_layout(name: str) -> Layout:
    """Returns the layout called `name`.

    Raises:
        ConfigurationError: There is none.
    """
    for layout in Layout.__subclasses__():
        if layout.name == name:
            return layout()
    raise ConfigurationError(
        f"data.layout is {name!r}, which does not exist: use one of {', '.join(layout_names())}."
    )
