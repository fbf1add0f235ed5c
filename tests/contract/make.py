"""Makes the fixtures of this folder: ``python -m tests.contract.make``, with the code of 09fcf66.

They stand for what users have on their disks, so they are not made anew when the code changes.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from tests.contract.chain import FIXTURES, TINY, parameters, run

from decodiff_pipeline.data.synthetic_defects import synthetic_defect
from decodiff_pipeline.deco import unet

SIDE = 32
COUNTS = (("train", "good", 16), ("test", "good", 4), ("test", "scratch", 4))


def draw_images(root: Path) -> None:
    """Two categories in MVTec's layout: smooth blobs, the defective ones with a bright bar."""
    random = np.random.default_rng(0)
    for category in ("bolt", "nut"):
        for split, kind, count in COUNTS:
            for number in range(count):
                coarse = random.integers(60, 160, (5, 5, 3), dtype=np.uint8)
                image = np.array(Image.fromarray(coarse).resize((SIDE, SIDE)))
                path = root / category / split / kind / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "scratch":
                    top, left = random.integers(2, 20, 2)
                    mask = np.zeros((SIDE, SIDE), np.uint8)
                    mask[top : top + 8, left : left + 5] = 255
                    image[mask > 0] = 250
                    truth = root / category / "ground_truth" / kind / f"{number:03d}_mask.png"
                    truth.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth, optimize=True)
                Image.fromarray(image).save(path, optimize=True)


def make_autoencoder(folder: Path) -> None:
    """An ``AutoencoderTiny`` with random weights."""
    torch.manual_seed(0)
    narrow = (8, 8, 8, 8)
    AutoencoderTiny(
        encoder_block_out_channels=narrow, decoder_block_out_channels=narrow,
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(folder)  # fmt: skip


def make(work: Path) -> dict[str, Any]:
    """Runs the chain, stores its files and returns what it measured."""
    import mlflow

    os.chdir(work)  # the model keeps the path that its autoencoder was loaded from
    unet.PRESETS["nano"] = TINY
    pipelines = {
        name: import_module(f"decodiff_pipeline.pipelines.{name}").create_pipeline()
        for name in ("data_validation", "latent_caching", "training", "evaluation", "registration")
    }
    make_autoencoder(FIXTURES / "autoencoder")
    shutil.copytree(FIXTURES / "autoencoder", "vae")
    values = parameters(Path("vae"))
    validated = run(pipelines["data_validation"], work, values)
    run(pipelines["latent_caching"], work, values)
    trained = run(pipelines["training"], work, values)
    evaluated = run(pipelines["evaluation"], work, values)
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "contract"
    mlflow.set_tracking_uri(f"sqlite:///{work / 'mlflow.db'}")
    mlflow.MlflowClient().create_experiment("contract", (work / "artifacts").as_uri())
    registered = run(pipelines["registration"], work, values)
    mlflow.artifacts.download_artifacts("models:/contract/1", dst_path=str(FIXTURES / "version"))
    keep_state(work)
    return {
        name: catalog.load(name)
        for catalog, names in (
            (validated, ["validated_manifest"]),
            (trained, ["training_log", "training_summary"]),
            (evaluated, ["evaluation_record", "metrics", "thresholds", "scores_table",
                         "training_review", "synthetic_metrics", "comparison"]),
            (registered, ["registration"]),
        )
        for name in names
    }  # fmt: skip


def keep_state(work: Path) -> None:
    """The latents, and the checkpoint in the middle of the training, compressed."""
    shutil.copytree(work / "data/04_feature/contract/latents", FIXTURES / "latents")
    target = FIXTURES / "checkpoints"
    target.mkdir()
    shutil.copy(work / "data/03_primary/contract/manifest.parquet", FIXTURES)
    source = work / "data/06_models/contract/checkpoints"
    shutil.copy(source / "checkpoint-00000003.json", target)
    weights = source / "checkpoint-00000003.safetensors"
    content = gzip.compress(weights.read_bytes(), 9, mtime=0)
    (target / f"{weights.name}.gz").write_bytes(content)


def draw_defects() -> None:
    """A sheet of good images, the images with their defects, and the masks."""
    paths = sorted((FIXTURES / "raw" / "bolt" / "train" / "good").glob("*.png"))[:8]
    columns = []
    for number, path in enumerate(paths):
        good = np.array(Image.open(path))
        image, mask = synthetic_defect(good, "contract", number)
        shown = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
        columns.append(np.concatenate([good, image, shown]))
    sheet = Image.fromarray(np.concatenate(columns, axis=1))
    sheet.save(FIXTURES / "synthetic_defects.png", optimize=True)


def forget_machine(file: Path) -> None:
    """Takes absolute paths out of a text file."""
    text = file.read_text()
    file.write_text(re.sub(r"(?<=: )(file://)?/\S*/", "", text))


def store_expected(results: dict[str, Any]) -> None:
    """Writes the numbers that the tests compare with."""
    manifest, record = results["validated_manifest"], results["evaluation_record"]
    registered = results["registration"]
    expected = {
        "manifest": manifest[["path", "split", "label", "sha256"]].to_dict("records"),
        "columns": {
            name: list(results[name].columns)
            for name in ("validated_manifest", "evaluation_record", "scores_table")
        },
        "scores": dict(zip(record["path"], map(float, record["score"]), strict=True)),
        "registration": sorted(registered),
        "tags": registered["tags"],
        **{name: value for name, value in results.items() if isinstance(value, dict | list)
           and name != "registration"},
    }  # fmt: skip
    (FIXTURES / "expected.json").write_text(json.dumps(expected, indent=1))


def main() -> None:
    """Replaces the fixtures."""
    shutil.rmtree(FIXTURES, ignore_errors=True)
    draw_images(FIXTURES / "raw")
    with tempfile.TemporaryDirectory() as folder:
        results = make(Path(folder))
    draw_defects()
    forget_machine(FIXTURES / "version" / "MLmodel")
    store_expected(results)


if __name__ == "__main__":
    main()
