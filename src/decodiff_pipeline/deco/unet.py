"""The DeCo-Diff network: diffusers' conditional UNet with one learned token per category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers.models.attention_processor import Attention

WIDTH_MULTIPLIERS = (1, 2, 4)
DROPOUT_LEVELS = 2**16  # resolution of the dropout rate
WORDS = 4  # 16-bit numbers per 64-bit draw


@dataclass(frozen=True)
class UNetPreset:
    """Size of a network.

    Attributes:
        base_channels: Channels c of the first level; the levels have c, 2c and 4c.
        num_heads: Attention heads of the first level.
        context_dim: Width of the category embedding.
        norm_groups: Groups of the group normalisation. With one channel per group it would cancel
            the timestep embedding, hence fewer groups for the narrowest network.
    """

    base_channels: int
    num_heads: int
    context_dim: int
    norm_groups: int = 32


PRESETS = {
    "nano": UNetPreset(32, 1, 64, norm_groups=8),
    "XS": UNetPreset(64, 4, 128),
    "S": UNetPreset(128, 4, 256),
    "M": UNetPreset(192, 6, 384),
    "L": UNetPreset(256, 8, 512),
    "XL": UNetPreset(320, 12, 640),
}


class QuickDropout(nn.Dropout):
    """``nn.Dropout`` with a faster random number generator on the CPU.

    torch's generator (Mersenne twister, one thread) takes 4 % of a training step. Here four
    elements share one draw of NumPy's SFC64, which is seeded by torch's generator, so that
    ``torch.manual_seed`` determines the result. On other devices, and in eval mode, it is
    ``nn.Dropout``. Resuming bit for bit requires the same generator.

    Attributes:
        place: Start of the input in the batch, and the batch's number of images, for processes
            that share a batch: each draws the numbers of the whole batch. None if the input is
            the batch.
    """

    place: tuple[int, int] | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Set a share ``p`` of the elements to zero and scale the others; any shape and dtype."""
        dropped = round(self.p * DROPOUT_LEVELS)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < DROPOUT_LEVELS:
            return super().forward(input)
        start, images = self.place or (0, len(input))
        per_image, count = input[0].numel(), input.numel()
        source = np.random.SFC64(int(torch.randint(2**62, ())))
        draws = source.random_raw(-(-images * per_image // WORDS)).view(np.int16)
        numbers = torch.from_numpy(draws)[start * per_image :][:count].view(input.shape)
        kept = numbers >= dropped - DROPOUT_LEVELS // 2  # the numbers are signed
        return input * (kept.to(input.dtype) * (DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped)))


class OneTokenCrossAttention:
    """Attention processor for a context of one token.

    The softmax over a single key is 1, so every position receives the projected value. Queries
    and keys have no influence and are not computed.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The projected value, (B, 1, inner), which the residual connection broadcasts."""
        value = attn.to_v(encoder_hidden_states)
        return attn.to_out[1](attn.to_out[0](value))


class DeCoDiffUNet(ModelMixin, ConfigMixin):
    """Predicts the deviation δ of a latent, given the timestep and the category.

    Source: the LDM UNet of the released DeCo-Diff code, as ``UNet2DConditionModel``.

    Args:
        categories: Category names in the order of the embedding's rows.
        sample_size: Side of the square latents; a multiple of 4.
        latent_mean: Channel means for :meth:`standardise`; null for 0.
        latent_std: Channel standard deviations for :meth:`standardise`; null for 1.

    Raises:
        ConfigurationError: The sizes are inconsistent, or a category name occurs twice.
    """

    @register_to_config
    def __init__(
        self,
        categories: Sequence[str],
        sample_size: int = 32,
        in_channels: int = 4,
        base_channels: int = 256,
        num_heads: int = 8,
        context_dim: int = 512,
        norm_groups: int = 32,
        dropout: float = 0.4,
        latent_mean: Sequence[float] | None = None,
        latent_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(categories, sample_size, base_channels, num_heads, norm_groups)
        widths = tuple(base_channels * multiplier for multiplier in WIDTH_MULTIPLIERS)
        head_width = base_channels // num_heads
        self.unet = UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=in_channels,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            block_out_channels=widths,
            layers_per_block=2,
            # Despite its name, this is the number of heads per level.
            attention_head_dim=tuple(width // head_width for width in widths),
            cross_attention_dim=context_dim,
            transformer_layers_per_block=1,
            use_linear_projection=False,
            dropout=dropout,
            norm_num_groups=norm_groups,
            norm_eps=1e-5,
            downsample_padding=1,
            flip_sin_to_cos=True,
            freq_shift=0,
        )
        self.category_embedding = nn.Embedding(len(categories), context_dim)
        one_token = OneTokenCrossAttention()
        processors = {
            name: one_token if ".attn2." in name else processor
            for name, processor in self.unet.attn_processors.items()
        }
        self.unet.set_attn_processor(processors)
        for block in [m for m in self.unet.modules() if isinstance(m, ResnetBlock2D)]:
            block.dropout = QuickDropout(dropout)

    @property
    def categories(self) -> tuple[str, ...]:
        """Category names in the order of the embedding."""
        return tuple(self.config.categories)

    def category_ids(self, names: Sequence[str]) -> torch.Tensor:
        """Ids (rows of the embedding) of N categories, int64 (N,).

        Raises:
            ModelError: A category is unknown.
        """
        known = {name: row for row, name in enumerate(self.categories)}
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ModelError(
                f"unknown category {unknown[0]!r}; this model knows {', '.join(known)}"
            )
        return torch.tensor([known[name] for name in names])

    def standardise(self, latents: torch.Tensor) -> torch.Tensor:
        """Standardise latents (B, C, h, w) by the channel statistics of the training."""
        mean, std = self._channel_statistics(latents)
        return (latents - mean) / std

    def restore(self, standardised: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`standardise`."""
        mean, std = self._channel_statistics(standardised)
        return standardised * std + mean

    def _channel_statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        channels = like.shape[1]
        mean = like.new_tensor(self.config.latent_mean or [0.0] * channels)
        std = like.new_tensor(self.config.latent_std or [1.0] * channels)
        return mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1)

    def use_plain_attention(self) -> None:
        """Use matrix products and a softmax for self-attention instead of torch's fused kernel.

        It is faster in bfloat16 on a CPU, forward and backward, if freed memory is kept
        (docs/performance.md).
        """
        plain = AttnProcessor()
        processors = {
            name: processor if isinstance(processor, OneTokenCrossAttention) else plain
            for name, processor in self.unet.attn_processors.items()
        }
        self.unet.set_attn_processor(processors)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        category_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the deviation.

        Args:
            sample: z_t, float (B, C, s, s).
            timestep: int64 (B,) or an int, within 0…T-1.
            category_ids: int64 (B,), indices into :attr:`categories`.

        Returns:
            δ̂, float (B, C, s, s).
        """
        context = self.category_embedding(category_ids)[:, None]  # (B, 1, context)
        return self.unet(sample, timestep, encoder_hidden_states=context, return_dict=False)[0]


def build_unet(
    preset: str, categories: Sequence[str], latent_size: int, channels: int, dropout: float
) -> DeCoDiffUNet:
    """A network of a preset size with random weights.

    Raises:
        ConfigurationError: The preset is unknown, or the latent size is not supported.
    """
    if preset not in PRESETS:
        raise ConfigurationError(
            f"unknown network preset {preset!r}; choose one of {', '.join(PRESETS)}"
        )
    size = PRESETS[preset]
    return DeCoDiffUNet(
        categories=list(categories),
        sample_size=latent_size,
        in_channels=channels,
        base_channels=size.base_channels,
        num_heads=size.num_heads,
        context_dim=size.context_dim,
        norm_groups=size.norm_groups,
        dropout=dropout,
    )


def _check_sizes(
    categories: Sequence[str],
    sample_size: int,
    base_channels: int,
    num_heads: int,
    norm_groups: int,
) -> None:
    if not categories or len(set(categories)) != len(categories):
        raise ConfigurationError(
            f"categories must be distinct and at least one, not {list(categories)}"
        )
    if sample_size % 4:
        raise ConfigurationError(
            f"latents of side {sample_size} cannot be halved twice; use a multiple of 4"
        )
    head_width = base_channels // max(num_heads, 1)
    # Channels may remain (XL has 12 heads of 26 channels), but fewer than another head needs.
    if base_channels % norm_groups or not head_width or base_channels // head_width != num_heads:
        raise ConfigurationError(
            f"base_channels={base_channels} with num_heads={num_heads} does not work: channels "
            f"must be a multiple of norm_groups={norm_groups} and make that many heads"
        )
