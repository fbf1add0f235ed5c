"""VisA (Visual Anomaly), with the folders and tables of its archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.layouts.base import (
    DEFECTIVE,
    GOOD,
    Layout,
    Record,
    find_folder,
)
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("object", "split", "label", "image", "mask")
LABELS = {"normal": GOOD, "anomaly": DEFECTIVE}


class VisALayout(Layout):
    """The one-class protocol, `split_csv/1cls.csv`: object, split, label, image, mask.

    Image and mask are paths relative to the root. Masks hold small integers; non-zero is defective.
    """

    name = "visa"
    expects = (
        "the extracted archive VisA_20220922.tar (from github.com/amazon-science/spot-diff), "
        "with split_csv/1cls.csv and <object>/Data/Images/"
    )

    def categories(self, root: Path) -> list[str]:
        """Objects in the table, sorted."""
        return sorted({nfc(row["object"]) for _, row in self._rows(root)})

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yield the images of `category`; normal train images have no split yet.

        Raises:
            DataError: A row has an unknown label or split.
        """
        for line, row in self._rows(root):
            if nfc(row["object"]) != category:
                continue
            if row["label"] not in LABELS or row["split"] not in {"train", "test"}:
                raise DataError(
                    f"{self._table(root)}, line {line}: label {row['label']!r} and split "
                    f"{row['split']!r}, where normal or anomaly and train or test are expected."
                )
            label = LABELS[row["label"]]
            yield Record(
                category=category,
                split=None if row["split"] == "train" and label == GOOD else row["split"],
                label=label,
                defect_type=GOOD if label == GOOD else "anomaly",
                path=row["image"],
                mask_path=(row["mask"] or None) if label == DEFECTIVE else None,
            )

    @staticmethod
    def _table(root: Path) -> Path:
        return find_folder(root, "split_csv") / "1cls.csv"

    def _rows(self, root: Path) -> list[tuple[int, dict[str, str]]]:
        """Rows of the table with their line numbers; empty if there is no table."""
        table = self._table(root)
        if not table.is_file():
            return []
        found = read_table(table, COLUMNS)
        if missing := [name for name in COLUMNS if name not in found.columns]:
            raise DataError(
                f"{table} has no column {', '.join(missing)} (it has {', '.join(found.columns)}): "
                f"VisA's own table has {', '.join(COLUMNS)}."
            )
        return [
            (line, row | {name: table_path(row[name], root) for name in ("image", "mask")})
            for line, row in found.rows
        ]
