"""The audit log of promotion and rollback."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from decodiff_pipeline.datasets.appended_lines import AppendedLinesDataset

if TYPE_CHECKING:
    from pathlib import Path


def test_processes_that_log_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    script = """
import sys
from decodiff_pipeline.datasets.appended_lines import AppendedLinesDataset
log = AppendedLinesDataset(filepath=sys.argv[1])
for i in range(50):
    log.save({"by": sys.argv[2], "i": i, "long": "x" * 20000})
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("a", "b")
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    lines = AppendedLinesDataset(filepath=str(path)).load()
    assert len(lines) == 100
    for name in ("a", "b"):
        assert [line["i"] for line in lines if line["by"] == name] == list(range(50))
