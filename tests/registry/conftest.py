"""An image to answer, and what the registry needs of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLDS = {"categories": {"mono": {"threshold": 0.05}}}


@pytest.fixture
def raw(tmp_path: Path, make) -> Path:
    """A folder with one test image of 60 x 50 pixels, ``mono/a.png``."""
    make.image(tmp_path / "raw" / "mono" / "a.png", seed=1, size=(60, 50))
    return tmp_path / "raw"


@pytest.fixture
def manifest() -> pd.DataFrame:
    """The manifest of ``raw``."""
    row = {"category": "mono", "split": "test", "label": "good", "path": "mono/a.png"}
    return pd.DataFrame([row | {"sha256": "ab" * 32}])


@pytest.fixture
def png(raw: Path) -> bytes:
    """The bytes of that image."""
    assert Image.open(raw / "mono" / "a.png").size == (60, 50)
    return (raw / "mono" / "a.png").read_bytes()
