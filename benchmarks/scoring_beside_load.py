"""Scoring beside a busy process: threads that sleep while they wait, against threads that spin."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from benchmarks.timing import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

IMAGES = 32
SIZE = 128  # pixels
POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def run() -> list[dict[str, Any]]:
    """One batch of the embedded default, on all cores, while a loop keeps one of them busy."""
    with busy_core():
        record = side_by_side(
            "scoring_beside_load",
            partial(scoring, package_first=True),
            partial(scoring, package_first=False),
            peer_name="the same with OpenMP's own policy, and one busy process beside both",
            images=IMAGES,
            rounds=3,
        )
    return [record]


def scoring(*, package_first: bool) -> Callable[[], np.ndarray]:
    """The demo's network, untrained, with the embedded autoencoder, from pixels to maps.

    Args:
        package_first: Import the package before torch, as every entry point does: it sets the
            policy, which torch reads when it is loaded.
    """
    for name in POLICIES:
        os.environ.pop(name, None)
    if package_first:
        import decodiff_pipeline  # noqa: F401
    import torch

    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import build_unet
    from decodiff_pipeline.deco.weights import AutoencoderConfig

    torch.manual_seed(0)
    unet = build_unet("nano", ("a",), SIZE // 8, 4, dropout=0.0).eval().requires_grad_(False)
    autoencoder = load_autoencoder(AutoencoderConfig())
    model = DeCoDiffPipeline(autoencoder, unet, DeCoDiffScheduler(), num_inference_steps=5)
    model.for_inference()
    model.set_progress_bar_config(disable=True)
    images = torch.rand(IMAGES, 3, SIZE, SIZE) * 2 - 1
    return lambda: model(images, ["a"] * IMAGES).anomaly_maps


@contextmanager
def busy_core() -> Iterator[None]:
    """A process that keeps the first core busy."""
    process = get_context("spawn").Process(target=_loop, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _loop() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass
