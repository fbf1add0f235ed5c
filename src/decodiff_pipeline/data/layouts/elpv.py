"""ELPV: electroluminescence images of solar cells, as the `elpv-dataset` package ships them."""

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

# Probability of a defect, in thirds: label and defect type.
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
    """One line of `labels.csv`: an image, its defect probability in thirds, its type."""

    path: str
    thirds: int
    category: str


class ELPVLayout(Layout):
    """`images/` and `labels.csv`: path, defect probability, type (mono or poly).

    The set has no splits. The first of every five good cells of a type, in file order, goes to
    test with the defective ones; `data.splits` divides the other good cells. Cells of probability
    1/3 and 2/3 are "uncertain": they are in test, apart from the rest, and never in train.
    """

    name = "elpv"
    expects = (
        "images/ and labels.csv of the elpv-dataset package, which "
        "`python -m decodiff_pipeline.data.acquire elpv` (or `make data`) puts"
    )

    def categories(self, root: Path) -> list[str]:
        """Returns the cell types in the table."""
        return sorted({cell.category for cell in self._cells(root)})

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields the cells of one type in file order."""
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
        """All go to `images`; a line at the table's end moves no other image to another split."""
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
        """Reads the table (separated by spaces); no cells where there is no table.

        Raises:
            DataError: A line does not say path, probability (0, 1/3, 2/3, 1) and type.
        """
        cells = []
        for number, line in enumerate(cls._text(root).splitlines(), start=1):
            if not line.strip(" \t;,") or SEPARATOR_LINE.match(line):
                continue
            try:
                path, probability, category = _fields(line)
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


def _fields(line: str) -> list[str]:
    """Splits at semicolons, tabs, or spaces (the package's own way), or commas."""
    for separator in (";", "\t", None, ","):
        fields = [field.strip().strip('"') for field in line.split(separator)]
        fields = [field for field in fields if field]
        if len(fields) == FIELDS:
            break
    return fields
