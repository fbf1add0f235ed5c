"""Memory while the pixel metrics of up to 10,000 maps are taken.

``python -m benchmarks.metric_memory``.
The maps (256², 2.6 GB at most) are written to a temporary file and memory-mapped. Pages of that
file count as resident until the system wants them back, so what the process itself holds is
printed beside the whole.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.pixel_metrics import MAPS, SIDE, blobs
from benchmarks.timing import status_mib
from decodiff_pipeline.metrics.binned import binned_metrics, image_histograms
from decodiff_pipeline.metrics.exact import pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTS = (100, 1_000, 10_000)
INTERVAL = 0.005  # seconds between two looks


def main() -> None:
    """Print the memory for each number of maps and each variant, one JSON line each."""
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "maps.npy"
            write(path, count)
            for variant in ("exact", "binned"):
                worker = get_context("spawn").Process(target=measure, args=(path, variant))
                worker.start()
                worker.join()


def write(path: Path, count: int) -> None:
    """Store the maps of `blobs` again and again, each time by another factor, so without ties."""
    maps, _ = blobs(MAPS)
    factors = np.random.default_rng(1).uniform(0.8, 1.2, count).astype(np.float32)
    shape = (count, SIDE, SIDE)
    stored = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for i, factor in enumerate(factors):
        stored[i] = maps[i % MAPS] * factor
    stored.flush()


def measure(path: Path, variant: str) -> None:
    """Take the metrics of stored maps and print what that needed."""
    _, masks = blobs(MAPS)
    maps = np.load(path, "r")
    truth: Sequence[np.ndarray] = [masks[i % MAPS] for i in range(len(maps))]
    before, peak, stop = resident()[0], [0, 0], threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL):
            peak[:] = map(max, zip(peak, resident(), strict=True))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    if variant == "exact":
        pixel_metrics(maps, truth)
    else:
        binned_metrics(image_histograms(maps, truth))
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    print(
        json.dumps(
            {
                "maps": len(maps),
                "variant": variant,
                "seconds": round(seconds, 1),
                "own_mib": peak[0],
                "before_mib": before,
                "resident_mib": peak[1],
            }
        ),
        flush=True,
    )


def resident() -> tuple[int, int]:
    """Resident MiB: what the process holds itself, and with the pages of files."""
    return status_mib("RssAnon"), status_mib("VmRSS")


if __name__ == "__main__":
    main()
