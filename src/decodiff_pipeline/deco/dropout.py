"""Dropout whose random numbers do not hold up the other cores."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

LEVELS = 2**16  # a rate is rounded to a 65,536th
WORDS = 4  # 16-bit numbers in one 64-bit draw


class QuickDropout(nn.Dropout):
    """``nn.Dropout`` with a faster source of random numbers on the CPU.

    torch draws one number after the other, in one thread, with a Mersenne twister: 4 % of a
    training step. Here four elements share one draw of NumPy's SFC64, seeded by torch's generator,
    so that ``torch.manual_seed`` decides the outcome as before. Elsewhere, and without training, it
    is ``nn.Dropout``.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Zero a share ``p`` of the elements and scale up the others; any shape and dtype."""
        dropped = round(self.p * LEVELS)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < LEVELS:
            return super().forward(input)
        count = input.numel()
        source = np.random.SFC64(int(torch.randint(2**62, ())))
        draws = source.random_raw(-(-count // WORDS)).view(np.int16)
        numbers = torch.from_numpy(draws)[:count].view(input.shape)
        kept = numbers >= dropped - LEVELS // 2  # the numbers are signed
        return input * (kept.to(input.dtype) * (LEVELS / (LEVELS - dropped)))
