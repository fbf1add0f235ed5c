"""Sizes, conditioning, saving and dropout of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from decodiff_pipeline.deco.unet import DeCoDiffUNet, QuickDropout, build_unet
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
    for preset, names, side, message in (
        ("huge", ["a"], 32, "unknown network preset 'huge'"),
        ("nano", ["a"], 30, "side 30"),
        ("nano", ["a", "a"], 32, "distinct"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            build_unet(preset, names, side, 4, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(7, 11, 61, 31, dtype=dtype)  # not a multiple of four elements
    out = QuickDropout(0.4)(ones)
    assert out.dtype == dtype
    assert (out == 0).float().mean().item() == pytest.approx(0.4, abs=0.005)
    assert out.unique().float().tolist() == pytest.approx([0, 1 / 0.6], rel=0.01)
    # Neighbours, which may share a draw, fall independently of each other.
    dropped = (out.flatten() == 0).float()
    both = (dropped[:-1] * dropped[1:]).mean().item()
    assert both == pytest.approx(0.16, abs=0.005)


def test_the_gradient_passes_where_the_value_did() -> None:
    values = torch.ones(1000, requires_grad=True)
    out = QuickDropout(0.5)(values)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_torchs_seed_decides() -> None:
    drop, values = QuickDropout(0.4), torch.ones(1000)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append([drop(values), drop(values)])
    assert torch.equal(outs[0][0], outs[1][0])
    assert not torch.equal(outs[0][0], outs[2][0])
    assert not torch.equal(outs[0][0], outs[0][1])


def test_all_or_nothing_is_dropped() -> None:
    for rate in (0.0, 1.0):
        assert torch.equal(QuickDropout(rate)(torch.ones(10)), torch.full((10,), 1 - rate))
    assert torch.equal(QuickDropout(0.4).eval()(torch.ones(10)), torch.ones(10))
