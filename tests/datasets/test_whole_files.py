"""Reports and tables are written completely or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "decodiff_pipeline.datasets.whole_files"
TABLE = pd.DataFrame({"score": [0.1, 0.2]})


def dataset(kind: str, path: Path, **options: Any) -> Any:
    config = {"type": f"{MODULE}.{kind}", "filepath": str(path), **options}
    return AbstractDataset.from_config("report", config)


@pytest.mark.parametrize(
    ("kind", "data"), [("JSONDataset", {"a": 1}), ("TextDataset", "é"), ("ParquetDataset", TABLE)]
)
def test_what_is_saved_is_loaded_and_nothing_else_is_left(
    tmp_path: Path, kind: str, data: Any
) -> None:
    one = dataset(kind, tmp_path / "new" / "report")
    one.save(data)
    one.save(data)
    loaded = one.load()
    assert loaded.equals(data) if kind == "ParquetDataset" else loaded == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report"]
    assert one.exists()


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    one = dataset("JSONDataset", tmp_path / "report.json", save_args={"indent": 2})
    one.save({"a": 1})
    with pytest.raises(DatasetError):
        one.save({"a": 2, "b": object()})  # fails half-way
    assert one.load() == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
