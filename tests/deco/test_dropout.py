from __future__ import annotations

import pytest
import torch

from decodiff_pipeline.deco.unet import QuickDropout


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
    assert values.grad is not None
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


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_or_nothing(rate: float) -> None:
    assert torch.equal(QuickDropout(rate)(torch.ones(10)), torch.full((10,), 1 - rate))


def test_nothing_is_dropped_outside_training() -> None:
    assert torch.equal(QuickDropout(0.4).eval()(torch.ones(10)), torch.ones(10))
