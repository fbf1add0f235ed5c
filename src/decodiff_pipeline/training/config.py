"""The parameters of training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.text import Text

CHAMPION, SCRATCH = "champion", "scratch"
# Parameters without influence on the result; a checkpoint can be resumed with other values.
RUN_ONLY = {"resume", "checkpoint_every", "keep_checkpoints", "log_every", "progress_bar"}
# Left out of the identity at their default, so that older checkpoints can be resumed.
ADDED_LATER = {"optimizer", "category_balance"}


class TrainingConfig(BaseModel):
    """Parameters of the training. The defaults are the paper's, where it gives a value.

    Attributes:
        preset: Size of the network; ``L`` is the paper's.
        epochs: Length in passes over the training images. Exactly one of ``epochs``, ``steps``
            and ``max_minutes`` is given.
        steps: Length in optimiser steps.
        max_minutes: Length in minutes. The duration of a step is measured before the first one;
            the number of steps that follows is stored and does not change afterwards.
        batch_size: Latents per forward pass.
        accumulation: Forward passes per optimiser step.
        optimizer: ``adamw`` as in the paper, or ``muon``: Muon for matrices and convolutions,
            AdamW for biases, normalisation and the category embedding, at the same learning rate.
        learning_rate: Peak learning rate.
        warmup: Length of the linear warm-up of the learning rate, as a share of the steps.
        final_learning_rate: Learning rate at the end of the cosine, as a share of the peak.
        cosine_length: Length of the half cosine as a multiple of the run's. 1 ends at
            ``final_learning_rate``; the released code's 1.5 ends at a quarter of the peak.
        weight_decay: Weight decay of the optimiser.
        gradient_clip: Largest norm of the gradient; null for no clipping.
        ema_decay: Decay of the exponential moving average of the weights. The averaged weights
            are the result of the training.
        dropout: Dropout in the residual blocks.
        bfloat16: Train under bfloat16 autocast; ``auto`` if the CPU or GPU supports it. With
            ``auto`` an interrupted run resumes in the precision of the machine, with a warning if
            it differs; an explicit value must be the checkpoint's.
        standardise_latents: Standardise each latent channel to mean 0 and standard deviation 1
            over the training images. The paper does not.
        latents: ``cached`` trains on the views in the latent cache; ``on_the_fly`` encodes a new
            view of every image in every epoch.
        sample_posterior: Draw latents from the autoencoder's posterior, if it has one.
        category_balance: Oversampling of small categories: a category of n images is drawn in
            proportion to n^(1 - balance). 0 takes each image once an epoch, 1 draws all
            categories equally often.
        corruption: Masks and noise.
        init_from: Initial weights: ``scratch`` (or null) for random ones; ``champion`` for those
            of the served model, if its architecture is the same; or a path to a released ``.pt``,
            an LDM checkpoint, or a folder with a network of this package.
        validate_every: Steps between validations.
        patience: Early stopping: number of validations without a better ``monitor``; null for no
            early stopping.
        monitor: Validation metric for early stopping and ``weights: best``.
        weights: Which network is the result: the ``last``, or the ``best`` by ``monitor``.
        log_every: Steps between rows of the training log.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: Number of newest checkpoints that are kept. The best one is kept as well
            with ``patience`` or ``weights: best``.
        threads: CPU threads; null for torch's default. Small networks gain little from a second
            thread, and are up to ten times slower with it beside other work.
        resume: If there is an unfinished run: ``auto`` resumes it, and fails if its parameters
            differ; ``if_same`` starts over in that case, for unattended runs; ``never`` always
            starts over.
        progress_bar: Show loss, speed and time left in the terminal.
        seed: Seed of the initial weights, the order of the data and the noise.
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
        """Whether the best checkpoint is kept."""
        return self.patience is not None or self.weights == "best"

    def identity(self) -> dict[str, object]:
        """The parameters that determine the result, as JSON values.

        ``init_from`` is left out: the content of the weights counts, not their path.
        """
        fields = type(self).model_fields
        unchanged = {name for name in ADDED_LATER if getattr(self, name) == fields[name].default}
        facts = self.model_dump(mode="json", exclude={*RUN_ONLY, "init_from", *unchanged})
        if self.corruption.device == CorruptionConfig.device:  # added later as well
            del facts["corruption"]["device"]
        return facts
