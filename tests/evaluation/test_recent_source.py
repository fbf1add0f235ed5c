"""Tables of recent images that lack something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import DataError
from decodiff_pipeline.monitoring.source import RecentSource

if TYPE_CHECKING:
    from pathlib import Path


def test_a_table_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "recent.csv"
    for content, said in [
        ("path\na.png\n", "it needs category"),
        ("category,score\nmono,\n", "line 2"),
        ("category,score\nmono,0.5\nmono,high\n", "line 3: score .high. is not a number"),
        ("category,path\n,a.png\n", "line 2"),
    ]:
        table.write_text(content)
        with pytest.raises(DataError, match=said):
            RecentSource(table).rows(None)
