"""Parameters of the autoencoder's training; does not import torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LATENT_STRIDE = 8  # pixels per latent position: three halvings
MIN_LEVELS, MAX_LEVELS = 3, 4  # resolutions: latents at 1/4 or 1/8


class AutoencoderTrainingConfig(BaseModel):
    """Images, network, objective and optimiser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[Literal["manifest", "procedural", "permissive"], float] = {"manifest": 1.0}
    """Share of the images drawn from each source; shares are normalised."""
    init_from: str = "scratch"
    """Initial weights: scratch (random), or an autoencoder: embedded, a folder or a hub id."""
    freeze_encoder: bool = False
    """Trains the decoder alone: the latents, and a detector trained on them, stay valid."""
    latent_channels: int = Field(4, ge=1, le=64)
    """Channels of the latents."""
    width: int = Field(48, ge=8, le=256)
    """Channels of every layer."""
    blocks: tuple[int, ...] = Field((0, 1, 4, 6), min_length=MIN_LEVELS, max_length=MAX_LEVELS)
    """Residual blocks at 1, 1/2, 1/4 (and 1/8) of the resolution, in encoder and decoder."""

    image_size: int = Field(256, ge=32, le=2048)
    """Length in pixels of an image's short side before cropping."""
    max_scale: float = Field(1.0, ge=1, le=8)
    """The short side is drawn between image_size and max_scale times it, without upsampling."""
    grey_share: float = Field(0.0, ge=0, le=1)
    """Share of crops that are converted to grey."""
    colour_jitter: float = Field(0.7, ge=0, le=1)
    """Share of batches whose channels are permuted, and scaled by 0.6 to 1 for each image."""
    crop_size: int = Field(64, ge=32, le=1024)
    """Side of the crops in pixels, a multiple of 8 and at most image_size."""
    pool_size: int = Field(2048, ge=1)
    """Number of crops that are drawn at a time."""
    crops_per_image: int = Field(8, ge=1)
    """Number of crops from each image that is read."""
    passes: int = Field(8, ge=1)
    """Number of passes over a pool of crops before the next one is drawn."""

    chroma_weight: float = Field(1.0, ge=0)
    """Weight of the chroma error (the error minus its mean over the channels)."""
    latent_noise: float = Field(0.05, ge=0, le=1)
    """Standard deviation of the noise on the latents; the decoder's range is -3 to 3."""
    teacher: str | None = None
    """Autoencoder, by hub id or folder, whose latents are a target of the encoder."""
    teacher_weight: float = Field(0.25, ge=0)
    """Weight of the error against the teacher's latents, in every fourth step."""
    steps: int = Field(4000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(8, ge=1)
    """Crops per step."""
    learning_rate: float = Field(1.5e-3, gt=0, le=1)
    """Learning rate of Muon; AdamW (first and last layer, biases) uses half of it."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of the linear warm-up of the learning rate; a half cosine to 0 follows."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of both optimisers."""
    gradient_clip: float = Field(0.05, gt=0)
    """Largest norm of the gradient. The norm is nearly always above 0.05, so that all batches have
    the same weight; otherwise reconstructions stay grey for thousands of steps."""
    ema_decay: float = Field(0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, which is the result."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Precision of the forward pass; auto: bfloat16 if the device supports it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto: the GPU if there is one."""
    seed: int = Field(0, ge=0)
    """Seed of the initial weights, the crops and the noise."""
    log_every: int = Field(50, ge=1)
    """Steps between rows of the training log."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.sources or min(self.sources.values()) <= 0:
            raise ValueError(f"sources needs at least one share, all above 0; got {self.sources}")
        if self.freeze_encoder and (self.init_from == "scratch" or self.teacher):
            raise ValueError("freeze_encoder needs init_from (not scratch), and no teacher")
        if min(self.blocks) < 0:
            raise ValueError(f"blocks holds a negative number: {self.blocks}")
        if self.crop_size % LATENT_STRIDE:
            raise ValueError(f"crop_size must be a multiple of {LATENT_STRIDE}: {self.crop_size}")
        if self.crop_size > self.image_size:
            raise ValueError(
                f"crop_size {self.crop_size} is larger than image_size {self.image_size}"
            )
        if self.pool_size * self.passes < self.batch_size:
            raise ValueError(
                f"pool_size * passes is {self.pool_size * self.passes}, less than one batch of "
                f"{self.batch_size}"
            )
        return self
