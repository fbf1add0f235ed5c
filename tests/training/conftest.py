"""A training small enough to be run whole in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models import wave_latents

from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.training.batches import Batch, LatentBatches
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.loop import TrainingRun
from decodiff_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

IMAGES = 5


@pytest.fixture(autouse=True)
def every_network_is_small(small_networks: None) -> None:
    """As `small_networks` says."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing gets to tidy up by catching Exception."""


class Scripted(Validation):
    """Returns given held-out losses, one a validation, whatever the network."""

    def __init__(self, validation: Validation, losses: Sequence[float], every: int) -> None:
        super().__init__(validation.batches, validation.corruption)
        self.losses, self.every = losses, every
        self.step: Callable[[], int] = int

    def measure(self, *args: Any) -> dict[str, float]:
        """The loss of the present step."""
        return {"held_out_loss": self.losses[self.step() // self.every - 1]}


@pytest.fixture
def tiny_run(tmp_path: Path) -> Callable[..., TrainingRun]:
    """Makes a run of the smallest network on 5 latents, smooth waves, in batches of 2.

    Its arguments are a folder within ``tmp_path`` and training parameters; ``losses`` takes the
    place of what validation would measure.
    """
    keys = [str(number) for number in range(IMAGES)]
    cache = LatentCache(tmp_path / "cache")
    mean = wave_latents(IMAGES)
    cache.append(keys, LatentMoments(mean, mean[:, :0]), "float32")

    def run(
        folder: str = "checkpoints", losses: Sequence[float] = (), **options: Any
    ) -> TrainingRun:
        length = {} if {"epochs", "max_minutes"} & {*options} else {"steps": 6}
        config = TrainingConfig.model_validate({
            "preset": "nano", "batch_size": 2, "learning_rate": 1e-3, "dropout": 0.1,
            "ema_decay": 0.9, "bfloat16": False, "validate_every": 1 if losses else 6,
            "log_every": 1, "checkpoint_every": 2, "progress_bar": False, **length, **options,
        })  # fmt: skip
        torch.manual_seed(config.seed)
        unet = build_unet(config.preset, ["a"], 8, 4, config.dropout)
        batches = LatentBatches(
            cache.reader(keys), [0] * IMAGES, views=1, batch_size=2, seed=config.seed
        )
        validation = Validation([Batch(mean[:3], torch.zeros(3).long())], config.corruption)
        if losses:
            validation = Scripted(validation, losses, config.validate_every)
        store = CheckpointStore(tmp_path / folder)
        identity = {**config.identity(), "categories": ["a"], "latent_shape": [4, 8, 8],
                    "channel_statistics": {"latent_mean": None, "latent_std": None}}  # fmt: skip
        training = TrainingRun(unet, batches, validation, config, store, identity)
        if isinstance(validation, Scripted):
            validation.step = lambda: training.step
        return training

    return run


@pytest.fixture
def killed_at() -> Callable[[TrainingRun, int], None]:
    """Runs a training until the given step begins."""

    def run(training: TrainingRun, step: int) -> None:
        train_step = training._train_step

        def dying_step() -> int:
            if training.step == step:
                raise Killed
            return train_step()

        training._train_step = dying_step  # type: ignore[method-assign]
        with pytest.raises(Killed):
            training.run()

    return run
