"""A tiny trained pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLDS = {"categories": {"mono": {"threshold": 0.05}}}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with random weights: categories mono and poly, 40² cropped to 32²."""
    import torch
    from diffusers import AutoencoderTiny

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

    torch.manual_seed(0)
    narrow = (8, 8, 8, 8)
    vae = AutoencoderTiny(
        encoder_block_out_channels=narrow,
        decoder_block_out_channels=narrow,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        scaling_factor=1.0,
    )
    unet = DeCoDiffUNet(
        categories=("mono", "poly"), sample_size=4, base_channels=32, num_heads=2, context_dim=8
    )
    pipeline = DeCoDiffPipeline(
        vae,
        unet,
        DeCoDiffScheduler(),
        preprocess={"resize": 40, "image_size": 32},
        num_inference_steps=2,
    )
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


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
