"""Resident memory while 10,000 images are scored: ``python -m benchmarks.constant_memory``."""

from __future__ import annotations

import json
import resource
import tempfile
from pathlib import Path

import pandas as pd
import torch

from benchmarks.latent_caching import make_images, table
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images

SIDE = 64
DIFFERENT = 100
COUNTS = (1_000, 10_000)


def main() -> None:
    """Print the largest resident memory after each number of images, one JSON line each."""
    torch.manual_seed(0)
    model = DeCoDiffPipeline(
        load_autoencoder(AutoencoderConfig()),
        build_unet("nano", ["a"], SIDE // 8, 4, dropout=0.0),
        DeCoDiffScheduler(),
        preprocess={"resize": SIDE, "image_size": SIDE},
        num_inference_steps=2,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "raw", DIFFERENT)
        for count in COUNTS:
            rows = pd.concat([table(DIFFERENT)] * (count // DIFFERENT), ignore_index=True)
            rows = rows.assign(split="test", mask_path=None)
            store = PredictionStore(folder / "predictions")
            score_images(model, rows, ImageFolder(folder / "raw"), store, EvaluationConfig())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps({"images": count, "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
