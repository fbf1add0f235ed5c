"""Lists the image files in a folder, with the same rules for every reader."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from decodiff_pipeline.data.file_names import (
    in_system_folder,
    is_left_out,
    is_system,
    masks_by_name,
    printable,
    require_distinct,
    require_utf8,
)
from decodiff_pipeline.data.images import LINK_CURE, SUFFIXES
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from decodiff_pipeline.data.tables import Table

logger = logging.getLogger(__name__)

Row = TypeVar("Row")


@dataclass
class FolderListing:
    """Contents of a folder, without hidden files and folders."""

    images: list[Path] = field(default_factory=list)  # files with an image suffix, sorted
    others: list[Path] = field(default_factory=list)
    # System files and folders (`file_names.is_system`); the folders are not searched.
    system: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # links to folders, not followed


def find_files(folder: Path, *, recursive: bool = True) -> FolderListing:
    """List the contents of a folder; the lists are empty if it does not exist.

    Raises:
        DataError: A folder cannot be listed, or two names differ only in Unicode normalisation.
    """
    found = FolderListing()
    if not os.path.isdir(folder):
        return found
    for where, folders, names in os.walk(folder, onerror=refuse_unlisted):
        found.system += [Path(where, name) for name in (*folders, *names) if is_system(name)]
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        files = [name for name in names if not is_left_out(name)]
        require_distinct((*folders, *files), Path(where))
        for name in files:
            path = Path(where, name)
            (found.images if path.suffix.lower() in SUFFIXES else found.others).append(path)
        if not recursive:
            break
        found.links += [path for name in folders if (path := Path(where, name)).is_symlink()]
    found.images.sort()
    found.system.sort()
    return found


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; empty if it does not exist.

    Hidden folders and system folders are left out.

    Raises:
        DataError: `folder` cannot be listed, or two names differ only in case or normalisation.
    """
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not is_left_out(e.name) and e.is_dir())
    except OSError as error:
        refuse_unlisted(error)
    require_distinct(names, folder, any_case=True)
    return names


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the files in `folder` with an image suffix, sorted; empty if it does not exist.

    Other files are left out with a warning, hidden files without one.

    Raises:
        DataError: As `find_files`; or, with `recursive`, a subfolder is a symbolic link, whose
            images would be missed.
    """
    return _without_other_files(folder, find_files(folder, recursive=recursive))


def list_images_to_score(folder: Path) -> list[str]:
    """List the images below a folder of images to score.

    Masks beside their image and system files are left out with a warning.

    Returns:
        Posix paths relative to `folder`, sorted.

    Raises:
        DataError: As `list_images`, or the path of an image is not UTF-8.
    """
    found = find_files(folder)
    paths = [path.relative_to(folder).as_posix() for path in _without_other_files(folder, found)]
    for path in paths:
        require_utf8(path, folder)
    log_system_files(folder, found.system)
    masks = masks_by_name(paths)
    if masks:
        first, image = min(masks.items())
        logger.warning(
            "%s: %d images are left out, which are masks or drawings of the image beside them by "
            "their names; the first is %s, beside %s",
            folder, len(masks), first, image,
        )  # fmt: skip
    return [path for path in paths if path not in masks]


def log_system_files(root: Path, system: Sequence[Path]) -> None:
    """Log one warning about all system files below a folder."""
    if system:
        logger.warning(
            "%s: %d files and folders of the operating system or a network drive are left out, "
            "the first is %s",
            printable(root),
            len(system),
            printable(system[0].relative_to(root)),
        )


def without_system_files(
    rows: Iterable[Row], path_of: Callable[[Row], str], source: Path
) -> list[Row]:
    """The rows of a table whose path is no system file, with a warning about the others."""
    kept: list[Row] = []
    system: list[str] = []
    for row in rows:
        path = path_of(row)
        if in_system_folder(path):
            system.append(path)
        else:
            kept.append(row)
    if system:
        logger.warning(
            "%s: %d rows that name files of the operating system or a network drive are left out, "
            "the first is %s",
            source, len(system), system[0],
        )  # fmt: skip
    return kept


def without_system(table: Table) -> Table:
    """`without_system_files` of a table with the column ``path``."""
    rows = without_system_files(table.rows, lambda row: row[1].get("path", ""), table.file)
    return replace(table, rows=tuple(rows))


def _without_other_files(folder: Path, found: FolderListing) -> list[Path]:
    if found.links:
        raise DataError(f"{printable(found.links[0])} is a link: {LINK_CURE}.")
    if found.others:
        logger.warning(
            "%s: %d files that are no images by their suffix are left out, the first is %s",
            printable(folder),
            len(found.others),
            printable(min(found.others).name),
        )
    return found.images


def refuse_unlisted(error: OSError) -> NoReturn:
    """Raise a `DataError` for a folder that cannot be listed."""
    raise DataError(
        f"{printable(error.filename)} cannot be listed ({error.strerror}): make the folder "
        "readable."
    ) from error
