"""Image files in the raw folder, and which of them the layout knows; others are misplaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.data.images import SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.layouts import Layout


def image_files(root: Path) -> list[str]:
    """Every visible file below `root` that is an image by its suffix; posix, relative, sorted."""
    found = []
    for where, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(where).relative_to(root)
        found += [
            (below / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def known_files(root: Path, layout: Layout, manifest: pd.DataFrame) -> set[str | None]:
    """What the layout has as an image or as a mask, in whatever category.

    Args:
        root: Of the raw images.
        layout: How they lie.
        manifest: Of the categories that are used; the others are listed.

    Returns:
        Posix paths relative to `root`, whether the files are there or not.
    """
    known: set[str | None] = {*manifest["path"], *manifest["mask_path"].dropna()}
    for category in {*layout.categories(root)} - {*manifest["category"]}:
        for record in layout.records(root, category):
            known |= {record.path, record.mask_path}
    return known
