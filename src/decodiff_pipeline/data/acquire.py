"""Puts raw images into `data/01_raw`: copied under a temporary name, then renamed.

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
    """Copies the images of the installed `elpv-dataset` package to `raw/elpv`, which it returns.

    Raises:
        DataError: The package is not installed, or `raw/elpv` holds something else.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "the package elpv-dataset is not installed: install the extra 'demo' "
            "(`pip install -e .[demo]`, or `make demo`, which does)."
        )
    return copy_tree(Path(spec.origin).parent / "data", raw / "elpv")


def acquire_folder(source: Path, name: str, raw: Path = RAW, *, link: bool = False) -> Path:
    """Copies a tree of images to `raw/name`, whatever its layout, and returns that folder.

    Args:
        link: Make hard links instead of copies: no space, no time, but one content under two
            names, so that whoever overwrites the one changes the other.

    Raises:
        DataError: `source` or `name` will not do, or `raw/name` holds something else.
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
    """Makes `target` a copy of the tree `source`, all of it or nothing.

    Links in `source` are followed, so that none is left in the copy; what the system or a tool put
    there is left out. Where `target` has the same files of the same sizes, nothing is done.

    Raises:
        DataError: `target` holds something else, a file cannot be read, or the disk is full.
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
        for left in target.parent.glob(f".{target.name}.partial-*"):  # of a run that was killed
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
    except OSError as error:  # shutil.Error is one
        raise DataError(f"{target} could not be made from {source}: {_reason(error)}.") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def file_sizes(folder: Path) -> dict[str, int]:
    """Returns size in bytes by posix path of every file below `folder`, links followed.

    Files and folders that the system or a tool made (`file_names.is_system`) are left out.

    Raises:
        DataError: A folder cannot be listed, or a name is not UTF-8.
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
    """The reason of an error in a few words, of the many of a copytree the first."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        errors = error.args[0]
        return f"{len(errors)} files failed, the first {errors[0][0]}: {errors[0][2]}"
    return f"{error.filename or ''} {error.strerror or error}".strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; ends the process with a sentence and status 1 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.data.acquire",
        description="Puts raw images where the pipeline and DVC look for them.",
    )
    parser.add_argument("--raw", type=Path, default=RAW, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("elpv", help="the images of the elpv-dataset package")
    folder = commands.add_parser("folder", help="a folder of your own")
    folder.add_argument("source", type=Path, help="where the images are")
    folder.add_argument("name", help="what the data set is to be called")
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
