"""A production line: its images, and versions of its model in a registry."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CATEGORIES = ("nut", "pin", "ring")
N_TEST = 8  # of a kind in a category


@dataclass(frozen=True)
class Line:
    """Images of a production line, and a registry with versions that were judged on nothing yet.

    Attributes:
        database: MLflow's, to be copied.
        raw: The images.
        manifest: Of ``raw``.
        versions: Number by what the version is good at.
    """

    database: Path
    raw: Path
    manifest: pd.DataFrame
    versions: dict[str, str]


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Line]:
    """Four versions: good at all categories, blind in some, and without the ring.

    A network with random weights finds bright squares once its discrepancies are divided by those
    of good images. Blind in a category means divided by next to nothing: all scores are 1 there.
    """
    import mlflow

    folder = tmp_path_factory.mktemp("line")
    manifest = production_line(folder / "raw")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "line")
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.MlflowClient().create_experiment("line", (folder / "mlartifacts").as_uri())
        versions = {}
        for name, categories, blind in (
            ("sharp", CATEGORIES, ()),
            ("blind to nuts", CATEGORIES, ("nut",)),
            ("blind to pins and rings", CATEGORIES, ("pin", "ring")),
            ("without rings", CATEGORIES[:2], ()),
        ):
            model = folder / name / "pipeline"
            save_model(model, folder / "raw", manifest, categories, blind)
            versions[name] = register_version(model, folder / "raw", manifest)
        mlflow.set_tracking_uri(None)
    yield Line(folder / "mlflow.db", folder / "raw", manifest, versions)


def production_line(root: Path) -> pd.DataFrame:
    """Noisy grey images, the defective ones with a brighter square; returns their manifest.

    All defective pins but the last have a mask.
    """
    rng = np.random.default_rng(0)
    rows = []
    for category in CATEGORIES:
        for split, label, count in (
            ("train", "good", N_TEST),
            ("test", "good", N_TEST),
            ("test", "defective", N_TEST),
        ):
            for i in range(count):
                path = root / category / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey = rng.normal(110, 6, (36, 32))
                mask = None
                if label == "defective":
                    grey[10:24, 10:24] += rng.uniform(60, 120)
                    if category == "pin" and i < N_TEST - 1:
                        mask = path.with_suffix(".mask.png")
                        shown = np.zeros(grey.shape, np.uint8)
                        shown[10:24, 10:24] = 255
                        Image.fromarray(shown).save(mask)
                        mask = mask.relative_to(root).as_posix()
                Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                relative = path.relative_to(root).as_posix()
                rows.append((category, split, label, relative, sha256, mask))
    columns = ["category", "split", "label", "path", "sha256", "mask_path"]
    manifest = pd.DataFrame(rows, columns=columns)
    return manifest.assign(defect_type=manifest["label"])


def save_model(
    folder: Path,
    raw: Path,
    manifest: pd.DataFrame,
    categories: tuple[str, ...],
    blind: tuple[str, ...],
) -> None:
    """Save a pipeline at 32² with the embedded autoencoder and a network that was not trained."""
    import torch
    from diffusers import AutoencoderTiny

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.reference import DiscrepancyReference
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.deco.weights import AutoencoderConfig, locate

    torch.manual_seed(1)
    pipeline = DeCoDiffPipeline(
        AutoencoderTiny.from_pretrained(locate(AutoencoderConfig())),
        DeCoDiffUNet(
            categories=categories, sample_size=4, base_channels=32, num_heads=2, context_dim=8
        ),
        DeCoDiffScheduler(),
        reference=DiscrepancyReference(len(categories), 32, 4),
        preprocess={"resize": 32, "image_size": 32},
        discrepancy={
            "normalisation": "position",
            "fusion": "pixel",
            "pixel_limit": 20.0,
            "pixel_sigma": 1.0,
        },
        num_inference_steps=2,
    )
    good = manifest[manifest["split"] == "train"]
    for number, category in enumerate(categories):
        paths = good["path"][good["category"] == category]
        images = pipeline.preprocess([Image.open(raw / path).convert("RGB") for path in paths])
        found = pipeline.discrepancies(images, torch.full((len(paths),), number))
        pipeline.reference.fit(number, found.pixel.numpy(), found.latent.numpy())
        if category in blind:
            pipeline.reference.pixel.data[number] /= 1e6
    pipeline.save_pretrained(folder)


def register_version(model: Path, raw: Path, manifest: pd.DataFrame) -> str:
    """Register a saved pipeline as the challenger; returns its number."""
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.pipelines.registration.nodes import register_model
    from decodiff_pipeline.registry.config import RegistrationConfig

    entry = {"threshold": 2.0, "promised_false_positive_rate": 0.05, "n_calibration": 19}
    thresholds = {"categories": dict.fromkeys(CATEGORIES, entry)}
    config = RegistrationConfig(model_name="decodiff")
    done = register_model(
        model, thresholds, {}, {}, manifest, ImageFolder(raw), manifest, {}, {}, config
    )
    return str(done["version"])
