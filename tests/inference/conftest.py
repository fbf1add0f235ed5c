"""Images, a copy of a tiny model, and what runs of the inference make of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.inference.store import InferenceStore
from decodiff_pipeline.pipelines.inference.nodes import infer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

THRESHOLDS = {
    "categories": {
        "mono": {"threshold": 0.02, "pixel_threshold": 0.01},
        "poly": {"threshold": None, "pixel_threshold": None},
    }
}


class World:
    """Six images, a copy of the model, and what a run makes of them."""

    def __init__(self, root: Path, model: Path, image: Callable[..., Path]) -> None:
        self.root, self.image = root, image
        self.source, self.output = root / "shots", root / "results"
        self.model = Path(shutil.copytree(model, root / "model"))
        self.thresholds: dict[str, Any] = json.loads(json.dumps(THRESHOLDS))
        self.config: dict[str, Any] = {"batch_size": 2}
        self.compute = ComputeConfig(processes=1)
        for number in range(4):
            image(self.source / "mono" / f"{number}.png", number, (60, 50))
        image(self.source / "poly" / "deep" / "0.png", 8, (50, 70))
        image(self.source / "poly" / "deep" / "0.jpg", 9, (90, 40), "RGB")

    def run(self, source: Path | None = None, **config: Any) -> pd.DataFrame:
        return infer(
            InferenceSource(source or self.source),
            self.model,
            self.root / "onnx",
            self.thresholds,
            InferenceStore(self.output),
            InferenceConfig(**self.config | config),
            DataConfig(layout="folder"),
            self.compute,
        )

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Every output file: content and time of its last change."""
        found = sorted(p for p in self.output.rglob("*") if p.is_file() and p.name != ".lock")
        return {
            p.relative_to(self.output).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
            for p in found
        }

    def maps(self) -> dict[str, np.ndarray]:
        """Every map: its 16-bit values."""
        found = (self.output / "maps").rglob("*.png")
        return {str(p.relative_to(self.output)): np.asarray(Image.open(p), int) for p in found}


def assert_close(maps: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Another number of threads sums in another order, which may move a value by one of 65,536."""
    assert maps.keys() == expected.keys()
    for name, values in maps.items():
        np.testing.assert_allclose(values, expected[name], atol=1)


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, make: Any) -> World:
    return World(tmp_path, tiny_model, make.image)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes of the images that the model has seen since it was last cleared."""
    seen: list[tuple[int, int]] = []
    call = DeCoDiffPipeline.__call__

    def counting(self: DeCoDiffPipeline, images: Any, *args: Any, **options: Any) -> Any:
        seen.extend(options["sizes"])
        return call(self, images, *args, **options)

    monkeypatch.setattr(DeCoDiffPipeline, "__call__", counting)
    return seen
