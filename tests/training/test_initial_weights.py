"""Weights to start from: what is said of them, and that they decide which run is resumed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch

from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.identity import differences
from decodiff_pipeline.training.initial_weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path


def network(seed: int, *categories: str) -> DeCoDiffUNet:
    torch.manual_seed(seed)
    return DeCoDiffUNet(list(categories), 8, base_channels=8, num_heads=1, context_dim=8,
                        norm_groups=4)  # fmt: skip


def test_what_was_used_and_what_was_not_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, unet = network(0, "nut", "screw"), network(1, "nut", "washer")
    source.save_pretrained(tmp_path / "unet")
    own = unet.category_embedding.weight[1].clone()
    with caplog.at_level(logging.INFO):
        weights = load_weights(unet, str(tmp_path / "unet"))
    assert torch.equal(unet.unet.conv_in.weight, source.unet.conv_in.weight)
    assert torch.equal(unet.category_embedding.weight[1], own)
    assert "not used, of the file: 1 tensors: category_embedding.weight[screw]" in caplog.text
    assert "of the network: 1 tensors: category_embedding.weight[washer]" in caplog.text
    assert len(weights.sha256) == 64


def test_a_path_with_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"init_from is .*missing\.pt, where there is noth"
    ):
        load_weights(network(1, "nut"), str(tmp_path / "missing.pt"))


def test_the_weights_count_and_not_their_path() -> None:
    a, b = (
        TrainingConfig(steps=1, init_from=path).identity() for path in ("last.pt", "moved/last.pt")
    )
    assert not differences({**a, "init_from_sha256": "1"}, {**b, "init_from_sha256": "1"})
    changed = differences(a, {**b, "init_from_sha256": "2"})
    assert changed == ["init_from_sha256 was None and is 2"]
