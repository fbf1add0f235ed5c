"""Reader of users' tables: CSV in the variants that Excel and scripts write, and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import on_disk
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

logger = logging.getLogger(__name__)

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_LINE = re.compile(r"""^"?sep=(.)"?[,;\t]*\r?\n?$""", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?[0-9]+(,[0-9]+)?")
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .xls
SAVE_AS = "save it as 'CSV UTF-8'"


@dataclass(frozen=True)
class Table:
    """A table of text values, stripped; a missing value is empty text."""

    file: Path
    columns: tuple[str, ...]  # lower-case names, with _ for spaces and hyphens
    # Line number and column → value. The header is line 1; rows of Parquet are counted from 1.
    rows: tuple[tuple[int, dict[str, str]], ...]
    # Whether a comma in a number is a decimal comma: the separator is another character.
    decimal_comma: bool = False

    def number(self, text: str, line: int, column: str) -> float | None:
        """Convert a value to a number; None for empty text.

        Raises:
            DataError: The text is not a number; the message names `line` and `column`.
        """
        try:
            return as_number(text, decimal_comma=self.decimal_comma) if text else None
        except ValueError as error:
            raise DataError(
                f"{self.file}, line {line}: {column} {text!r} is not a number: write it as 0.25."
            ) from error


def read_table(file: Path, known: Collection[str]) -> Table:
    """Read a table with a header.

    CSV may be UTF-8, UTF-16, UTF-32 or Windows-1252, with or without a byte order mark and Excel's
    ``sep=;`` line. Without that line, the separator is the one of `SEPARATORS` that yields the most
    names of ``known``. Lines without any value are skipped.

    Raises:
        DataError: The file cannot be read, is empty, repeats a column, or has a malformed line.
    """
    if file.suffix.lower() == ".parquet":
        return _parquet(file)
    text, _ = decoded(file)
    stream = io.StringIO(text, newline="")
    first = next(stream, "")
    given = SEPARATOR_LINE.match(first)
    header, skipped = (next(stream, ""), 1) if given else (first, 0)
    separator = given[1] if given else _find_separator(header, known)
    stream.seek(len(first) if given else 0)
    reader = csv.reader(stream, delimiter=separator, strict=True)
    try:
        names = [_column_name(name) for name in next(reader, [])]
        if not any(names):
            raise DataError(f"{file} is empty: write a line with the names of its columns.")
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                line = reader.line_num + skipped
                rows.append((line, _row(cells, names, f"{file}, line {line}", separator)))
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num + skipped}: {error}: close the quotes, and double a "
            "quote within quotes."
        ) from error
    return Table(file, _require_distinct(names, file), tuple(rows), separator != ",")


def decoded(file: Path) -> tuple[str, str]:
    """Decode a text file: its text and its encoding.

    Raises:
        DataError: The file cannot be read or decoded, or is an Excel workbook.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): make it readable.") from error
    if data.startswith(WORKBOOKS):
        raise DataError(f"{file} is an Excel workbook: {SAVE_AS}.")
    encoding = next(
        (name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None
    )
    if encoding is None and b"\0" in data[:200]:  # UTF-16 without a byte order mark
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError as error:
            failed = error
            continue
        if name == "cp1252":
            logger.warning("%s is not UTF-8: it is read as Windows-1252; better %s", file, SAVE_AS)
        return text, name
    line = data[: failed.start].count(b"\n") + 1
    raise DataError(
        f"{file}, line {line}: byte {data[failed.start]:#04x} is not {failed.encoding}: {SAVE_AS}."
    ) from failed


def as_number(text: str, *, decimal_comma: bool) -> float:
    """Parse a number; raises ValueError if the text is not a number."""
    if decimal_comma and NUMBER.fullmatch(text):
        text = text.replace(",", ".")
    return float(text)


def table_path(text: str, root: Path) -> str:
    r"""Convert a relative path in a table to the path of the file on disk.

    If no file has exactly this name, ``\`` is read as ``/`` and the Unicode normal form of the file
    on disk is used.

    Raises:
        DataError: The path is an absolute Windows path.
    """
    if ("\\" not in text and text.isascii() and ":" not in text) or os.path.exists(root / text):
        return text
    if WINDOWS_PATH.match(text):
        raise DataError(f"{text!r} is a path of Windows: use paths relative to {root}, with /.")
    slashes = re.sub(r"^(\./)+", "", text.replace("\\", "/"))
    return on_disk(root, slashes)


def _parquet(file: Path) -> Table:
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file} is not a readable Parquet file ({reason}): write it again."
        ) from error
    names = [_column_name(str(name)) for name in table.columns]
    columns = _require_distinct(names, file)
    text = table.astype(object).where(table.notna(), "").astype(str)
    rows = (
        {name: value.strip() for name, value in zip(names, row, strict=True) if name}
        for row in text.itertuples(index=False, name=None)
    )
    return Table(file, columns, tuple(enumerate(rows, start=1)))


def _require_distinct(names: list[str], file: Path) -> tuple[str, ...]:
    """The non-empty column names; raises DataError for a duplicate."""
    columns = [name for name in names if name]
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"{file} has two columns {twice!r}: keep one.")
    return tuple(columns)


def _find_separator(header: str, known: Collection[str]) -> str:
    def found(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator), [])
        return len({_column_name(cell) for cell in cells} & {*known})

    return max(SEPARATORS, key=found)  # the first one if several are equal


def _column_name(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.replace("\ufeff", "").strip().strip('"')).lower()


def _row(cells: list[str], names: list[str], where: str, separator: str) -> dict[str, str]:
    values = [cell.strip() for cell in cells]
    beyond = [value for value in values[len(names) :] if value]
    if beyond:
        raise DataError(
            f"{where}: {beyond[0]!r} is beyond the last of {len(names)} columns: put a value with "
            f"{separator!r} in it into quotes."
        )
    values += [""] * (len(names) - len(values))
    return {name: value for name, value in zip(names, values, strict=False) if name}
