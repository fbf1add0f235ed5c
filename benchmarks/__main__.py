"""Runs every benchmark of this folder and writes ``benchmarks/results.json``.

``python -m benchmarks`` runs all, ``python -m benchmarks training_step`` only those named. A
benchmark is a module with ``run() -> list[dict]``; each record has ``name``, ``ours``, ``peer``,
``peer_name``, ``unit`` and ``ratio`` (above 1 = ours is better), medians measured side by side.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

BENCHMARKS = (
    "training_step",
    "data_parallel",
    "epoch",
    "inference",
    "scoring_beside_load",
    "latent_caching",
    "two_processes",
    "start_up",
    "pixel_metrics",
)
RESULTS = Path(__file__).parent / "results.json"


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all; the records of the others stay in the file."""
    records = {}
    if names and RESULTS.is_file():
        records = {record["name"]: record for record in json.loads(RESULTS.read_text())}
    for name in names or BENCHMARKS:
        for record in importlib.import_module(f"benchmarks.{name}").run():
            records[record["name"]] = record
            print(json.dumps(record), flush=True)
    RESULTS.write_text(json.dumps(list(records.values()), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
