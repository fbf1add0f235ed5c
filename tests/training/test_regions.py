"""Validation during training judges synthetic defects within regions."""

from __future__ import annotations

import torch

from decodiff_pipeline.training.setup import _inside_regions
from decodiff_pipeline.training.validation import SyntheticDefects


def test_defects_outside_of_a_region_are_left_out() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, 0, 0] = masks[1, 3, 3] = masks[2, 0, 0] = masks[2, 3, 3] = 1.0
    latents = torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4)
    synthetic = SyntheticDefects(latents, latents + 10, masks, torch.tensor([0, 1, 2]))
    inside = torch.zeros(3, 4, 4, dtype=torch.bool)
    inside[:, :2] = True
    judged, cells = _inside_regions(synthetic, inside)
    assert judged is not None
    assert cells is not None
    assert judged.category_ids.tolist() == [0, 2]
    assert judged.good[:, 0, 0, 0].tolist() == [0, 2]
    assert judged.masks.sum((1, 2)).tolist() == [1, 1]
    assert len(cells) == 2
    assert _inside_regions(synthetic, ~inside & False) == (None, None)
