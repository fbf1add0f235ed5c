"""The parameters of training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.text import Text

CHAMPION, SCRATCH = "champion", "scratch"
# These say how to run, not what comes out; changing them does not change the training.
RUN_ONLY = {"resume", "checkpoint_every", "keep_checkpoints", "log_every", "progress_bar"}
# Not part of the identity at their default, so that trainings begun before them stay the same.
ADDED_LATER = {"optimizer", "category_balance"}


class TrainingConfig(BaseModel):
    """How the network is trained. The defaults are the paper's where the paper says.

    Attributes:
        preset: Size of the network; ``L`` is the paper's.
        epochs: Length in passes over the training images. Exactly one of ``epochs``, ``steps``
            and ``max_minutes`` is given.
        steps: Length in optimiser steps.
        max_minutes: Length in minutes: a short measurement before the first step turns it into a
            number of steps, which is stored and stays, however fast the rest goes.
        batch_size: Latents per forward pass.
        accumulation: Forward passes per optimiser step.
        optimizer: ``adamw`` as in the paper, or ``muon``: Muon for matrices and convolutions,
            AdamW for biases, normalisation and the category embedding, at the same learning rate.
        learning_rate: Peak learning rate.
        warmup: Share of the steps over which the learning rate rises from 0.
        final_learning_rate: Where the cosine ends, as a share of the peak.
        cosine_length: Length of the half cosine as a multiple of the run's: 1 reaches its end, the
            released code's 1.5 breaks off at a quarter of the peak.
        weight_decay: Weight decay of the optimiser.
        gradient_clip: Largest norm of the gradient; null for none.
        ema_decay: Decay of the moving average of the weights, which is what gets evaluated.
        dropout: Dropout in the residual blocks.
        bfloat16: Train under bfloat16 autocast; ``auto`` where the processor or the GPU has it. An
            interrupted run goes on under ``auto`` in what the machine has, with a warning where
            it was begun in the other; an explicit value must be the checkpoint's.
        standardise_latents: Give every channel of the latents mean 0 and standard deviation 1 over
            the training images. The paper does not.
        latents: ``cached`` trains on the views that the latent cache holds; ``on_the_fly`` encodes
            a fresh view of every image in every epoch.
        sample_posterior: Draw latents from the autoencoder's posterior, where it has one.
        category_balance: How far small categories are drawn more often: a category of n images is
            drawn in proportion to n^(1 - balance). 0 takes each image once an epoch, 1 all
            categories equally often.
        corruption: Masks and noise.
        init_from: Weights to start from: ``scratch`` (or null) for random ones; ``champion`` for
            those of the model that is served, where it is of the same kind; or a path to a
            released ``.pt``, an LDM checkpoint, or a folder with one of this package's networks.
        validate_every: Steps between validations.
        patience: Validations without a better ``monitor`` after which training stops; null for
            never.
        monitor: Which figure of the validation decides what is better.
        weights: Whether the ``last`` network is the result or the ``best`` by ``monitor``.
        log_every: Steps between rows of the training log.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the newest checkpoints stay; with ``patience`` or ``weights:
            best`` the best one stays as well.
        threads: Threads of the processor; null for as many as torch takes. Small networks gain
            little from a second one, and beside any other work the threads wait for each other:
            ten times slower was measured.
        resume: ``auto`` goes on where an interrupted run stopped, and refuses where that was
            another training; ``if_same`` starts over there, for runs that nobody watches;
            ``never`` always starts over.
        progress_bar: Show loss, speed and time left in the terminal.
        seed: Source of the initial weights, the order of the data and the noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["nano", "XS", "S", "M", "L", "XL"] = "L"
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    warmup: float = Field(default=0.0125, ge=0, lt=1)
    final_learning_rate: float = Field(default=0.0, ge=0, le=1)
    cosine_length: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    gradient_clip: float | None = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    bfloat16: bool | Literal["auto"] = "auto"
    standardise_latents: bool = False
    latents: Literal["cached", "on_the_fly"] = "cached"
    sample_posterior: bool = True
    category_balance: float = Field(default=0.0, ge=0, le=1)
    corruption: CorruptionConfig = CorruptionConfig()
    init_from: Text | None = Field(default=None, min_length=1)
    validate_every: int = Field(default=500, ge=1)
    patience: int | None = Field(default=None, ge=1)
    monitor: Literal["held_out_loss", "synthetic_pixel_ap", "synthetic_image_auroc"] = (
        "held_out_loss"
    )
    weights: Literal["last", "best"] = "last"
    log_every: int = Field(default=20, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    threads: int | None = Field(default=None, ge=1)
    resume: Literal["auto", "if_same", "never"] = "auto"
    progress_bar: bool = True
    seed: int = Field(default=0, ge=0)

    @field_validator("init_from")
    @classmethod
    def _scratch_is_none(cls, value: str | None) -> str | None:
        return None if value == SCRATCH else value

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(given is not None for given in (self.epochs, self.steps, self.max_minutes)) != 1:
            raise ValueError(
                "give exactly one of training.epochs, training.steps and training.max_minutes; "
                "set the others to null"
            )
        return self

    @property
    def monitored(self) -> bool:
        """Whether the best network so far is kept."""
        return self.patience is not None or self.weights == "best"

    def identity(self) -> dict[str, object]:
        """Everything that decides the outcome, as JSON values.

        Initial weights are left out: their content counts, not their path.
        """
        fields = type(self).model_fields
        unchanged = {name for name in ADDED_LATER if getattr(self, name) == fields[name].default}
        facts = self.model_dump(mode="json", exclude={*RUN_ONLY, "init_from", *unchanged})
        if self.corruption.device == CorruptionConfig.device:  # added later as well
            del facts["corruption"]["device"]
        return facts
