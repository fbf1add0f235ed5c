"""The stored files, and a project's data folder that is filled with them."""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from tests.contract.chain import FIXTURES, TINY

from decodiff_pipeline.deco import unet

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT = "checkpoint-00000003"


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What the code of 09fcf66 measured."""
    return json.loads((FIXTURES / "expected.json").read_text())


@pytest.fixture(scope="session")
def manifest() -> pd.DataFrame:
    """The validated manifest as it was stored."""
    return pd.read_parquet(FIXTURES / "manifest.parquet")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which data were validated and latents cached, with a smaller preset `nano`."""
    monkeypatch.setitem(unet.PRESETS, "nano", TINY)
    primary = tmp_path / "data" / "03_primary" / "contract"
    primary.mkdir(parents=True)
    shutil.copy(FIXTURES / "manifest.parquet", primary)
    shutil.copytree(FIXTURES / "latents", tmp_path / "data" / "04_feature" / "contract" / "latents")
    return tmp_path


@pytest.fixture
def interrupted(project: Path) -> Path:
    """The project with the checkpoint of step 3 of 6."""
    folder = project / "data" / "06_models" / "contract" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "checkpoints" / f"{CHECKPOINT}.json", folder)
    stored = (FIXTURES / "checkpoints" / f"{CHECKPOINT}.safetensors.gz").read_bytes()
    (folder / f"{CHECKPOINT}.safetensors").write_bytes(gzip.decompress(stored))
    return project
