"""The wiring of promotion and rollback: catalog, parameters, and the log that only grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from decodiff_pipeline.datasets.appended_lines import AppendedLinesDataset

CONF = Path(__file__).parents[2] / "conf" / "base"
IN_MEMORY = {"promotion_judgement"}


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
