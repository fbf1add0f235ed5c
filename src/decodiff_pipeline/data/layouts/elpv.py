"""ELPV: electroluminescence images of solar cells, as in the `elpv-dataset` package."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD, UNCERTAIN, Layout, Place, Record
from decodiff_pipeline.data.tables import SEPARATOR_LINE, as_number, decoded, table_path
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Defect probability in thirds → label and defect type.
LABELS = {
    0: (GOOD, GOOD),
    1: (UNCERTAIN, "uncertain_33"),
    2: (UNCERTAIN, "uncertain_67"),
    3: (DEFECTIVE, "defective"),
}
TEST_EVERY = 5
FIELDS = 3
TABLE = "labels.csv"


class Cell(NamedTuple):
    """A line of `labels.csv`: image path, defect probability in thirds, cell type."""

    path: str
    thirds: int
    category: str


class ELPVLayout(Layout):
    """`images/` and `labels.csv`: path, defect probability, type (mono or poly).

    The data set has no splits. Of the good cells of a type, in file order, the first of every five
    goes to test; `data.splits` divides the others. Defective cells go to test. Cells of
    probability 1/3 and 2/3 are "uncertain": they go to test and are evaluated separately.
    """

    name = "elpv"
    expects = (
        "images/ and labels.csv of the elpv-dataset package, which "
        "`python -m decodiff_pipeline.data.acquire elpv` (or `make data`) puts"
    )

    def categories(self, root: Path) -> list[str]:
        """Cell types in the table, sorted."""
        return sorted({cell.category for cell in self._cells(root)})

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yield the cells of one type in file order."""
        seen: Counter[str] = Counter()
        for cell in self._cells(root):
            if cell.category != category:
                continue
            label, defect = LABELS[cell.thirds]
            divided = label == GOOD and seen[label] % TEST_EVERY != 0
            seen[label] += 1
            yield Record(category, None if divided else "test", label, defect, cell.path)

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Add to `images` and to the end of the table, which keeps the splits of other images."""
        probability = 0.0 if defect_type is None else 1.0
        path = f"images/{file}"
        text = self._text(root)
        between = next((one for one in (";", "\t") if one in text.partition("\n")[0]), "  ")
        line = between.join((path, f"{probability}", category))
        return Place(path, table=TABLE, line=line)

    @staticmethod
    def _text(root: Path) -> str:
        table = root / TABLE
        return decoded(table)[0] if table.is_file() else ""

    @classmethod
    def _cells(cls, root: Path) -> list[Cell]:
        """Read the table; empty if it does not exist."""
        cells = []
        for number, line in enumerate(cls._text(root).splitlines(), start=1):
            if not line.strip(" \t;,") or SEPARATOR_LINE.match(line):
                continue
            try:
                path, probability, category = _split_line(line)
                thirds = 3 * as_number(probability, decimal_comma=True)
                if abs(thirds - round(thirds)) > 0.02 or round(thirds) not in LABELS:  # noqa: PLR2004
                    raise ValueError(probability)
            except (ValueError, OverflowError) as error:  # nan, inf
                raise DataError(
                    f"{root / TABLE}, line {number}: {line!r} is not a path, a probability of 0, "
                    "1/3, 2/3 or 1 and a type: put the package's own table there."
                ) from error
            cells.append(Cell(table_path(path, root), round(thirds), nfc(category)))
        return cells


def _split_line(line: str) -> list[str]:
    """Split a line at semicolons, tabs, spaces (as in the package) or commas."""
    for separator in (";", "\t", None, ","):
        fields = [field.strip().strip('"') for field in line.split(separator)]
        fields = [field for field in fields if field]
        if len(fields) == FIELDS:
            break
    return fields
