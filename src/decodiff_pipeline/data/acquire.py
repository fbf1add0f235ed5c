"""Copies raw images to `data/01_raw`, under a temporary name until the copy is complete.

python -m decodiff_pipeline.data.acquire elpv
python -m decodiff_pipeline.data.acquire folder /where/the/images/are my_parts
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import is_system, require_utf8
from decodiff_pipeline.data.listing import find_files, log_system_files, refuse_unlisted
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

RAW = Path("data/01_raw")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def acquire_elpv(raw: Path = RAW) -> Path:
    """Copy the images of the installed `elpv-dataset` package to `raw/elpv`; return that folder.

    Raises:
        DataError: The package is not installed, or as `copy_tree`.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "the package elpv-dataset is not installed: install the extra 'demo' "
            "(`pip install -e .[demo]`, or `make demo`, which does)."
        )
    return copy_tree(Path(spec.origin).parent / "data", raw / "elpv")


def acquire_folder(source: Path, name: str, raw: Path = RAW, *, link: bool = False) -> Path:
    """Copy a folder of images, in any layout, to `raw/name`; return that folder.

    Args:
        link: Make hard links instead of copies. Links need no space or time, but a change of a file
            changes the original too.

    Raises:
        DataError: `source` or `name` is invalid, or as `copy_tree`.
    """
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be the name of a data set: use letters, digits, '.', '_', '-'."
        )
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: name the folder that the images are in.")
    target = raw / name
    inner, outer = source.resolve(), target.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError(f"one of {source} and {target} lies in the other: move {source} first.")
    return copy_tree(source, target, link=link)


def copy_tree(source: Path, target: Path, *, link: bool = False) -> Path:
    """Copy the folder `source` to `target`, completely or not at all.

    Symbolic links are followed and become files. System files (`file_names.is_system`) are left
    out. A `target` that already has the same files with the same sizes is kept.

    Raises:
        DataError: `source` has no files, `target` has other files, or copying fails.
    """
    wanted = file_sizes(source)
    log_system_files(source, find_files(source).system)
    if not wanted:
        raise DataError(f"{source} holds no files: name the folder that the images are in.")
    if target.exists() or target.is_symlink():
        if file_sizes(target) == wanted:
            return target
        raise DataError(
            f"{target} is there and differs from {source}: move it away and run this again, or "
            "choose another name."
        )
    staging = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.partial-*"):  # of a killed run
            shutil.rmtree(left)
        if not link:
            _require_space(target.parent, sum(wanted.values()))
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        shutil.copytree(
            source,
            staging / target.name,
            copy_function=_hard_link if link else shutil.copyfile,
            ignore=_system_files,
        )
        (staging / target.name).rename(target)
    except OSError as error:  # or shutil.Error, its subclass
        raise DataError(f"{target} could not be made from {source}: {_reason(error)}.") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def file_sizes(folder: Path) -> dict[str, int]:
    """Sizes in bytes of the files below `folder`, by relative posix path; links are followed.

    System files and folders (`file_names.is_system`) are left out.

    Raises:
        DataError: A folder cannot be listed, or a path is not UTF-8.
    """
    sizes = {}
    for where, folders, names in os.walk(folder, onerror=refuse_unlisted, followlinks=True):
        folders[:] = [name for name in folders if not is_system(name)]
        for name in names:
            path = Path(where, name)
            if not is_system(name) and os.path.exists(path):
                relative = path.relative_to(folder).as_posix()
                require_utf8(relative, folder)
                sizes[relative] = os.path.getsize(path)
    return sizes


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free and the images need {size / 1e9:.1f} GB: make "
            "room, or link them (--link) where they lie on the same disk."
        )


def _hard_link(source: str, target: str) -> None:
    os.link(Path(source).resolve(), target)


def _system_files(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if is_system(name)]


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        errors = error.args[0]
        return f"{len(errors)} files failed, the first {errors[0][0]}: {errors[0][2]}"
    return f"{error.filename or ''} {error.strerror or error}".strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with an error message and status 1 on a `DataError`."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.data.acquire",
        description="Puts raw images where the pipeline and DVC look for them.",
    )
    parser.add_argument("--raw", type=Path, default=RAW, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("elpv", help="the images of the elpv-dataset package")
    folder = commands.add_parser("folder", help="a folder of your own")
    folder.add_argument("source", type=Path, help="where the images are")
    folder.add_argument("name", help="name of the data set")
    folder.add_argument("--link", action="store_true", help="hard links instead of copies")
    options = parser.parse_args(arguments)
    try:
        if options.command == "elpv":
            path = acquire_elpv(options.raw)
        else:
            path = acquire_folder(options.source, options.name, options.raw, link=options.link)
    except DataError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{path}: {len(file_sizes(path)):,} files\n")


if __name__ == "__main__":
    main()
