"""File names: system files, names of masks, and how names are compared.

`is_system` alone decides which files an operating system, a network drive or a tool made. Names
are compared in Unicode normal form NFC: macOS writes "ü" as two characters, other systems as one.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM_NAMES = frozenset({
    # Synology, QNAP, NetApp
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot",
    "~snapshot", ".snapshot", ".snapshots", ".zfs", ".@__thumb",
    # Windows
    "$recycle.bin", "recycler", "recycled", "recycle bin", "system volume information",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
    # macOS
    "__macosx", ".ds_store", ".appledouble", ".apdisk", ".trashes", ".spotlight-v100",
    ".fseventsd", ".temporaryitems", ".documentrevisions-v100", "network trash folder",
    "temporary items", "icon\r",
    # Linux, viewers, notebooks, Python
    "lost+found", ".trash", ".directory", ".thumbnails", "thumbnails", "thumbs", ".picasaoriginals",
    ".ipynb_checkpoints", "__pycache__",
})  # fmt: skip
SYSTEM_PREFIXES = ("._", ".trash-", ".nfs", ".fuse_hidden", "@syno", "synophoto_thumb", "found.0")

MASK_TERMS = (
    r"gt|masks?|msk|labels?|lbl|seg|segm|segmentations?|anno|annot|annotations?|annotated|"
    r"(?:ground[-_ ]?)?truth|labelids|instanceids|overlay|heat[-_ ]?map|thumb|thumbnail"
)
MASK_NAME = re.compile(
    rf"(?:(?:{MASK_TERMS})[-_. ]+(?P<end>.+)"
    rf"|(?P<start>.+?)(?:(?:[-_. ]+|(?<=\d))(?:colou?r[-_ ]?)?(?:{MASK_TERMS}))+[-_. ]?\(?\d*\)?)",
    re.IGNORECASE,
)
# Other keys of the metrics: mean over the categories, gates on the whole model, baselines.
RESERVED_KEYS = frozenset({"mean", "all", "baseline"})


def is_system(name: str) -> bool:
    """Whether an operating system, a network drive or a tool makes files of this name."""
    folded = name.casefold()
    return folded in SYSTEM_NAMES or folded.startswith(SYSTEM_PREFIXES)


def is_left_out(name: str) -> bool:
    """Whether a file or folder is not part of a data set: hidden, or `is_system`."""
    return name.startswith(".") or is_system(name)


def in_system_folder(path: str) -> bool:
    """Whether any component of a posix path `is_system`."""
    return any(is_system(part) for part in PurePosixPath(path).parts)


def nfc(text: str) -> str:
    """Normalise a name to NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def same_name(name: str) -> str:
    """Key that is equal for names that differ only in case or Unicode normalisation."""
    return nfc(nfc(name).casefold())


def printable(path: str | PurePath) -> str:
    """Printable path, with bytes that are not UTF-8 escaped, such as ``\\xe4``."""
    return _bytes_of(str(path)).decode("utf-8", "backslashreplace")


def on_disk(root: Path, relative: str) -> str:
    """Convert a path from a table to the Unicode normal form that it has on disk."""
    parts = Path(relative).parts
    if relative.isascii() or ".." in parts or Path(relative).is_absolute():
        return relative
    if os.path.exists(root / relative):
        return relative
    path = root
    for part in parts:
        try:
            names = os.listdir(path)
        except OSError:
            return relative
        path /= next((name for name in names if nfc(name) == nfc(part)), part)
    return path.relative_to(root).as_posix()


def require_utf8(path: str, root: PurePath) -> None:
    """Check that other programs, and this locale, can represent a path.

    Raises:
        DataError: The path is not UTF-8, or the locale is ASCII and the path is not.
    """
    try:
        path.encode()
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise DataError(encoding_error(path, root)) from error


def encoding_error(path: str, root: PurePath | str) -> str:
    """Message that says why a name cannot be used, and what to do."""
    named = f"the file name {printable(path)} in {printable(root)}"
    try:
        _bytes_of(path).decode("utf-8")
    except UnicodeDecodeError:
        return (
            f"{named} is not UTF-8: rename the file (`convmv -f latin1 -t utf8 -r --notest FOLDER` "
            "renames all of a folder)."
        )
    return f"{named} is not ASCII, and the locale is not UTF-8: set LC_ALL=C.UTF-8 or PYTHONUTF8=1."


def require_distinct(names: Iterable[str], folder: PurePath, *, any_case: bool = False) -> None:
    """Check that no two names in a folder differ only in Unicode normalisation or, if asked, case.

    Raises:
        DataError: Two names do; the message escapes non-ASCII characters if they look the same.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(same_name(name) if any_case else nfc(name), name)
        if other != name:
            alike = nfc(other) == nfc(name)
            first, second = (ascii(one) if alike else repr(one) for one in sorted((other, name)))
            how = "in Unicode normalisation (NFC and NFD)" if alike else "by case"
            raise DataError(
                f"{printable(folder)} holds {first} and {second}, which differ only {how}: rename "
                "or remove one."
            )


def masks_by_name(paths: Iterable[str]) -> dict[str, str]:
    """Find masks and drawings in the folder of their image, by their names.

    Returns:
        Mask → image, such as ``{"good/000_GT.png": "good/000.png"}``.
    """
    listed = [*paths]
    named = [path for path in listed if MASK_NAME.fullmatch(PurePosixPath(path).stem)]
    folders = {path.rpartition("/")[0] for path in named}
    beside = map(PurePosixPath, (p for p in listed if p.rpartition("/")[0] in folders))
    stems = {(path.parent, same_name(path.stem)): path for path in beside}
    found = {}
    for path in map(PurePosixPath, named):
        match = MASK_NAME.fullmatch(path.stem)
        image = match and stems.get((path.parent, same_name(match["start"] or match["end"])))
        if image:
            found[path.as_posix()] = image.as_posix()
    return found


def _bytes_of(path: str) -> bytes:
    """The original bytes of a name, in any locale; characters become UTF-8."""
    return path.encode("utf-8", "surrogateescape")


def metric_key(name: str) -> str:
    """Replace the characters that MLflow does not allow in metric names."""
    return re.sub(r"[^\w\-. /]", "_", name)


def check_names(names: Iterable[str], root: Path) -> None:
    """Check that the metrics of categories can be told apart.

    Raises:
        DataError: A name is in `RESERVED_KEYS`, or two names have the same `metric_key`.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = metric_key(name)
        if key in RESERVED_KEYS:
            raise DataError(
                f"the name of the category {name!r} in {root} is a reserved key of the metrics: "
                "give it another name."
            )
        if key in seen:
            raise DataError(
                f"the categories {seen[key]!r} and {name!r} in {root} are both {key!r} in MLflow, "
                "which replaces other characters: rename one."
            )
        seen[key] = name
