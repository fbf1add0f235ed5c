"""The parameters of training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decodiff_pipeline.deco.config import CorruptionConfig

# These say how to run, not what comes out; changing them does not change the training.
RUN_ONLY = {"resume", "checkpoint_every", "keep_checkpoints", "log_every", "progress_bar"}


class TrainingConfig(BaseModel):
    """How the network is trained. The defaults are the paper's where the paper says.

    Attributes:
        preset: Size of the network, a key of :data:`decodiff_pipeline.deco.unet.PRESETS`.
        epochs: Length in passes over the training images; alternative to ``steps``.
        steps: Length in optimiser steps; alternative to ``epochs``.
        batch_size: Latents per forward pass.
        accumulation: Forward passes per optimiser step.
        learning_rate: Peak of the schedule.
        warmup: Share of the steps over which the learning rate rises from 0.
        final_learning_rate: Where the cosine ends, as a share of the peak.
        weight_decay: Of AdamW.
        gradient_clip: Largest norm of the gradient; null for none.
        ema_decay: Decay of the moving average of the weights, which is what gets evaluated.
        dropout: Of the residual blocks.
        bfloat16: Train under bfloat16 autocast.
        standardise_latents: Give every channel of the latents mean 0 and standard deviation 1 over
            the training images. The paper does not.
        sample_posterior: Draw latents from the autoencoder's posterior, where it has one.
        corruption: Masks and noise.
        validate_every: Steps between measurements of the held-out loss.
        log_every: Steps between rows of the training log.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the newest checkpoints stay.
        threads: Threads of the processor; null for as many as torch takes. Small networks gain
            little from a second one, and beside any other work the threads wait for each other:
            ten times slower was measured.
        resume: ``auto`` goes on where an interrupted run stopped; ``never`` starts over.
        progress_bar: Show loss, speed and time left in the terminal.
        seed: Source of the initial weights, the order of the data and the noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["nano", "XS", "S", "M", "L", "XL"] = "L"
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.0125, ge=0, lt=1)
    final_learning_rate: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    gradient_clip: float | None = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    bfloat16: bool = True
    standardise_latents: bool = False
    sample_posterior: bool = True
    corruption: CorruptionConfig = CorruptionConfig()
    validate_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    threads: int | None = Field(default=None, ge=1)
    resume: Literal["auto", "never"] = "auto"
    progress_bar: bool = True
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            msg = "give either training.epochs or training.steps, not both or neither"
            raise ValueError(msg)
        return self

    def identity(self) -> dict[str, object]:
        """Everything that decides the outcome, as JSON values."""
        return self.model_dump(mode="json", exclude=RUN_ONLY)
