"""Sizes, conditioning and saving of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from decodiff_pipeline.deco.unet import DeCoDiffUNet, build_unet
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def small(seed: int = 0) -> DeCoDiffUNet:
    torch.manual_seed(seed)
    return build_unet("nano", ["mono", "poly"], 8, 4, dropout=0.1).eval()


def test_the_sizes_are_those_of_the_released_networks() -> None:
    with torch.device("meta"):
        unet = build_unet("XS", [str(i) for i in range(15)], 32, 4, dropout=0.4)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 24_749_636


def test_the_category_matters_and_so_does_the_timestep() -> None:
    unet, sample = small(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        mono, poly = (unet(sample, 3, torch.tensor([i])) for i in (0, 1))
        later = unet(sample, 8, torch.tensor([0]))
    assert mono.shape == sample.shape
    assert not torch.allclose(mono, poly)
    assert not torch.allclose(mono, later)


def test_one_token_attention_equals_the_full_computation() -> None:
    unet, sample = small(), torch.randn(2, 4, 8, 8)
    ids = torch.tensor([0, 1])
    with torch.no_grad():
        short = unet(sample, 3, ids)
        unet.unet.set_attn_processor(AttnProcessor())
        full = unet(sample, 3, ids)
    torch.testing.assert_close(short, full, atol=1e-5, rtol=0)


def test_plain_attention_equals_the_fused_kernel() -> None:
    unet, sample, ids = small(), torch.randn(2, 4, 8, 8), torch.tensor([0, 1])
    with torch.no_grad():
        fused = unet(sample, 3, ids)
        unet.use_plain_attention()
        plain = unet(sample, 3, ids)
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=0)


def test_saving_keeps_weights_and_categories(tmp_path: Path) -> None:
    unet = small()
    unet.save_pretrained(tmp_path)
    loaded = DeCoDiffUNet.from_pretrained(tmp_path)
    assert loaded.categories == ("mono", "poly")
    assert [file.suffix for file in tmp_path.iterdir() if "json" not in file.suffix] == [
        ".safetensors"
    ]
    saved, read = unet.state_dict(), loaded.state_dict()
    assert all(torch.equal(saved[name], read[name]) for name in saved)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="unknown network preset 'huge'"):
        build_unet("huge", ["a"], 32, 4, 0.0)
    with pytest.raises(ConfigurationError, match="side 30"):
        build_unet("nano", ["a"], 30, 4, 0.0)
    with pytest.raises(ConfigurationError, match="distinct"):
        build_unet("nano", ["a", "a"], 32, 4, 0.0)
