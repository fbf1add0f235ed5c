"""Side-by-side timing: both sides take turns, so that a busy machine is unfair to neither."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def side_by_side(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    peer_name: str,
    images: int,
    rounds: int = 5,
) -> dict[str, Any]:
    """Median images/s of two functions that process the same images, called in turns.

    Args:
        name: Name of the record.
        ours: This project's way.
        peer: The other way.
        peer_name: What the other way is.
        images: How many images one call processes.
        rounds: Calls of each that count, after one that warms up.
    """
    seconds: dict[Callable[[], object], list[float]] = {ours: [], peer: []}
    for function in (ours, peer):
        function()
    for _ in range(rounds):
        for function, times in seconds.items():
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    speeds = [images / statistics.median(times) for times in seconds.values()]
    return {
        "name": name,
        "ours": round(speeds[0], 3),
        "peer": round(speeds[1], 3),
        "peer_name": peer_name,
        "unit": "images/s",
        "ratio": round(speeds[0] / speeds[1], 3),
    }
