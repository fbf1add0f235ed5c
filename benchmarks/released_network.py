"""The released network rebuilt plainly, with its parameter names: the peer that ours is held to.

Two uses: the speed comparison, and the tests that converted weights mean the same function.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

GROUPS = 32
LEVELS = (1, 2, 4)
BLOCKS = 2


def timestep_features(timesteps: torch.Tensor, width: int) -> torch.Tensor:
    """Cosines, then sines, of t at geometric frequencies from 1 to nearly 1/10000.

    Args:
        timesteps: (B,).
        width: Even number of features.

    Returns:
        float32 (B, width).
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps.float()[:, None] * frequencies.to(timesteps.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions; the timestep is added between them."""

    def __init__(self, inputs: int, outputs: int, time_width: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) and (B, time_width) → (B, outputs, h, w)."""
        hidden = self.in_layers(sample) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(sample) + self.out_layers(hidden)


class Attention(nn.Module):
    """Multi-head attention as two matrix products and a softmax."""

    def __init__(self, width: int, context: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width = heads, head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context, inner, bias=False)
        self.to_v = nn.Linear(context, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(0.0))

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(B, N, width) attends to (B, M, context) → (B, N, width)."""
        query = self._by_head(self.to_q(tokens))  # (B, heads, N, head width)
        key, value = self._by_head(self.to_k(context)), self._by_head(self.to_v(context))
        weights = (query @ key.transpose(-1, -2) * self.head_width**-0.5).softmax(dim=-1)
        return self.to_out((weights @ value).transpose(1, 2).flatten(2))

    def _by_head(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.heads, self.head_width)).transpose(1, 2)


class GatedLinear(nn.Module):
    """GEGLU: one half of a linear map, multiplied by the GELU of the other half."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, inputs) → (B, N, outputs)."""
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """The two-layer network that each token passes through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedLinear(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, width) → (B, N, width)."""
        return self.net(tokens)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the category, feed-forward; each on a normalised input."""

    def __init__(self, width: int, context: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.attn1 = Attention(inner, inner, heads, head_width)
        self.ff = FeedForward(inner)
        self.attn2 = Attention(inner, context, heads, head_width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(inner) for _ in range(3))

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(B, N, inner), (B, 1, context) → (B, N, inner)."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        return tokens + self.ff(self.norm3(tokens))


class SpatialTransformer(nn.Module):
    """A transformer block over the positions of a feature map, added to it."""

    def __init__(
        self, width: int, context: int, heads: int, head_width: int, recompute: bool
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.recompute = recompute
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, inner, 1)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(width, context, heads, head_width)]
        )
        self.proj_out = nn.Conv2d(inner, width, 1)

    def forward(self, sample: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w), (B, 1, context) → (B, width, h, w)."""
        hidden = self.proj_in(self.norm(sample))
        tokens = hidden.flatten(2).transpose(1, 2)  # (B, h·w, inner)
        for block in self.transformer_blocks:
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, context, use_reentrant=False)
            else:
                tokens = block(tokens, context)
        return sample + self.proj_out(tokens.transpose(1, 2).reshape(hidden.shape))


class Downsample(nn.Module):
    """Halves the sides by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) → (B, width, h/2, w/2)."""
        return self.op(sample)


class Upsample(nn.Module):
    """Doubles the sides by repetition, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) → (B, width, 2h, 2w)."""
        return self.conv(functional.interpolate(sample, scale_factor=2, mode="nearest"))


class CategoryEmbedding(nn.Module):
    """One learned token per category."""

    def __init__(self, categories: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(categories, context)

    def forward(self, category_ids: torch.Tensor) -> torch.Tensor:
        """int64 (B,) → (B, 1, context)."""
        return self.embedding(category_ids)[:, None]


class ReleasedUNet(nn.Module):
    """The network of the released code: LDM's UNet with a category token.

    Args:
        categories: Number of categories.
        base_channels: Channels c of the first level; the levels have c, 2c and 4c.
        num_heads: Attention heads of the first level; all levels share its head width.
        context_dim: Width of the category token.
        dropout: Rate in the residual blocks.
        gradient_checkpointing: Recompute the transformer blocks in the backward pass, as the
            released code does.
        in_channels: Channels of the latents.
    """

    def __init__(
        self,
        categories: int,
        base_channels: int,
        num_heads: int,
        context_dim: int,
        dropout: float = 0.4,
        gradient_checkpointing: bool = False,
        in_channels: int = 4,
    ) -> None:
        super().__init__()
        head_width, time_width = base_channels // num_heads, 4 * base_channels
        self.base_channels = base_channels

        def residual(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, time_width, dropout)

        def transformer(width: int) -> SpatialTransformer:
            heads = width // head_width
            return SpatialTransformer(width, context_dim, heads, head_width, gradient_checkpointing)

        self.cond_stage_model = CategoryEmbedding(categories, context_dim)
        self.time_embed = nn.Sequential(
            nn.Linear(base_channels, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        width, kept = base_channels, [base_channels]
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(in_channels, width, 3, padding=1)])]
        )
        for level, outputs in enumerate(base_channels * multiple for multiple in LEVELS):
            for _ in range(BLOCKS):
                self.input_blocks.append(
                    nn.ModuleList([residual(width, outputs), transformer(outputs)])
                )
                width = outputs
                kept.append(width)
            if level < len(LEVELS) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(width)]))
                kept.append(width)
        self.middle_block = nn.ModuleList(
            [residual(width, width), transformer(width), residual(width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(base_channels * m for m in LEVELS))):
            for block in range(BLOCKS + 1):
                parts = [residual(width + kept.pop(), outputs), transformer(outputs)]
                if level and block == BLOCKS:
                    parts.append(Upsample(outputs))
                self.output_blocks.append(nn.ModuleList(parts))
                width = outputs
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, in_channels, 3, padding=1)
        )

    def forward(
        self, sample: torch.Tensor, timesteps: torch.Tensor | int, category_ids: torch.Tensor
    ) -> torch.Tensor:
        """Predict the deviation.

        Args:
            sample: z_t, float (B, C, s, s), s a multiple of 4.
            timesteps: int64 (B,) or one int.
            category_ids: int64 (B,).

        Returns:
            δ̂, float (B, C, s, s).
        """
        steps = torch.as_tensor(timesteps, device=sample.device).expand(len(sample))
        time = self.time_embed(timestep_features(steps, self.base_channels).to(sample.dtype))
        context = self.cond_stage_model(category_ids)
        hidden, kept = sample, []
        for parts in self.input_blocks:
            hidden = _through(parts, hidden, time, context)
            kept.append(hidden)
        hidden = _through(self.middle_block, hidden, time, context)
        for parts in self.output_blocks:
            hidden = _through(parts, torch.cat([hidden, kept.pop()], dim=1), time, context)
        return self.out(hidden)


def _through(
    parts: nn.Module, hidden: torch.Tensor, time: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    for part in parts.children():
        if isinstance(part, ResidualBlock):
            hidden = part(hidden, time)
        elif isinstance(part, SpatialTransformer):
            hidden = part(hidden, context)
        else:
            hidden = part(hidden)
    return hidden
