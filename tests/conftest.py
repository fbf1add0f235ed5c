"""Small image trees, the folder of real data that DECODIFF_TEST_DATA names, an MLflow store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.tracking.mlflow_values import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from mlflow import MlflowClient

    from decodiff_pipeline.deco.weights import AutoencoderConfig


def textured(seed: int, size: tuple[int, int] = (48, 40), mode: str = "L") -> Image.Image:
    """Returns an image of smooth random blobs, another for each seed; size is (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save_image(path: Path, seed: int, size: tuple[int, int] = (48, 40), mode: str = "L") -> Path:
    """Saves a `textured` image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    textured(seed, size, mode).save(path)
    return path


def save_mask(path: Path, size: tuple[int, int] = (48, 40), value: int = 255) -> Path:
    """Saves a mask with a square defect of `value` on zeros; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[4:12, 6:14] = value
    Image.fromarray(mask).save(path)
    return path


def mvtec_category(root: Path, name: str = "bolt", train: int = 30, seed: int = 0) -> Path:
    """Makes `root/name`: `train` good images, 4 good test ones, 3 with a "scratch" and a mask."""
    base = root / name
    for i in range(train):
        save_image(base / "train" / "good" / f"{i:03d}.png", 1000 * seed + i)
    for i in range(4):
        save_image(base / "test" / "good" / f"{i:03d}.png", 1000 * seed + 500 + i)
    for i in range(3):
        save_image(base / "test" / "scratch" / f"{i:03d}.png", 1000 * seed + 600 + i)
        save_mask(base / "ground_truth" / "scratch" / f"{i:03d}_mask.png")
    return base


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above, for tests that build their own trees."""
    return SimpleNamespace(image=save_image, mask=save_mask, category=mvtec_category)


@pytest.fixture
def mvtec_tree(tmp_path: Path) -> Path:
    """A root with the category "bolt" (see `mvtec_category`) in MVTec's layout."""
    root = tmp_path / "raw"
    mvtec_category(root)
    return root


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Returns a function that gives a folder of real data by name, or skips the test."""

    def find(name: str) -> Path:
        folder = os.environ.get("DECODIFF_TEST_DATA")
        if not folder:
            pytest.skip("DECODIFF_TEST_DATA names no folder of real data")
        path = Path(folder) / name
        if not path.is_dir():
            pytest.skip(f"{path} is not there")
        return path

    return find


@pytest.fixture
def tiny_autoencoder(tmp_path: Path) -> AutoencoderConfig:
    """A saved ``AutoencoderTiny`` with random weights; it has no posterior."""
    from tests.models import narrow_autoencoder

    from decodiff_pipeline.deco.weights import AutoencoderConfig

    narrow_autoencoder().save_pretrained(tmp_path / "tiny_autoencoder")
    return AutoencoderConfig(source=str(tmp_path / "tiny_autoencoder"))


@pytest.fixture
def raw(tmp_path: Path, make: SimpleNamespace) -> Path:
    """A folder with one test image of 60 x 50 pixels, ``mono/a.png``."""
    make.image(tmp_path / "raw" / "mono" / "a.png", seed=1, size=(60, 50))
    return tmp_path / "raw"


@pytest.fixture
def manifest() -> pd.DataFrame:
    """The manifest of ``raw``."""
    import pandas as pd

    row = {"category": "mono", "split": "test", "label": "good", "path": "mono/a.png"}
    return pd.DataFrame([row | {"sha256": "ab" * 32}])


@pytest.fixture
def png(raw: Path) -> bytes:
    """The bytes of the image in ``raw``."""
    return (raw / "mono" / "a.png").read_bytes()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    prepare_environment()
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{path}")
    client.delete_experiment(client.create_experiment("made first"))
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of a tracking store and registry of this test's own, which MLflow uses meanwhile."""
    import mlflow

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    mlflow.set_tracking_uri(uri)
    mlflow.MlflowClient(uri).create_experiment("default", (tmp_path / "mlartifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "default")
    monkeypatch.chdir(tmp_path)
    yield uri
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def client(store: str) -> MlflowClient:
    """A client of `store`."""
    from mlflow import MlflowClient

    return MlflowClient(store)


@pytest.fixture
def register(
    tiny_model: Path, raw: Path, manifest: pd.DataFrame, store: str
) -> Callable[..., dict[str, Any]]:
    """Runs the node of the registration on `tiny_model`, with other inputs by keyword."""
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.pipelines.registration.nodes import register_model
    from decodiff_pipeline.registry.config import RegistrationConfig

    def run(name: str = "decodiff", **changes: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "model_folder": tiny_model,
            "thresholds": {"categories": {"mono": {"threshold": 0.05}}},
            "metrics": {"categories": {}},
            "reference": {},
            "manifest": manifest,
            "images": ImageFolder(raw),
            "record": manifest,
            "model_record": {},
            "provenance": {},
            "registration": RegistrationConfig(model_name=name),
        }
        return register_model(**{**inputs, **changes})

    return run


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two presets with 0.4 and 0.9 million parameters in place of 6 and 25."""
    from decodiff_pipeline.deco.unet import PRESETS, UNetPreset

    monkeypatch.setitem(PRESETS, "nano", UNetPreset(8, 1, 8, norm_groups=4))
    monkeypatch.setitem(PRESETS, "XS", UNetPreset(12, 1, 8, norm_groups=4))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with random weights: categories mono and poly, 40² cropped to 32²."""
    from tests.models import small_pipeline

    folder = tmp_path_factory.mktemp("model") / "pipeline"
    small_pipeline(resize=40).save_pretrained(folder)
    return folder
