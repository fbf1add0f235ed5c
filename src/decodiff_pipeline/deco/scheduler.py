"""The masked forward process and the deterministic reverse process of DeCo-Diff."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

from decodiff_pipeline.deco.device import to_device
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.unet import DeCoDiffUNet

MAX_BETA = 0.999
COSINE_OFFSET = 0.008
REVERSE_STEPS = ("constant", "carried")


@dataclass
class DeCoDiffSchedulerOutput(BaseOutput):
    """Result of one reverse step.

    Attributes:
        prev_sample: Sample of the next smaller timestep, (B, C, h, w); after the last step it is
            the corrected latent.
        pred_original_sample: Estimate of the deviation-free latent at this step, (B, C, h, w).
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class DeCoDiffScheduler(SchedulerMixin, ConfigMixin):
    """Forward corruption and reverse correction over a short squared-cosine schedule.

    Everything follows from one identity: with the deviation δ of the paper,
    ``z_t = z + sqrt(1 - ᾱ_t) · δ`` holds exactly, at corrupted and at kept positions alike.

    Source: Beizaee et al., CVPR 2025 (arXiv 2503.19357), section 3; ᾱ_t after Nichol & Dhariwal,
    "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17.

    Args:
        num_train_timesteps: Length T of the schedule. The released weights use 10.
        reverse_step: What becomes of δ̂ between two reverse steps, see :meth:`step`: ``constant``
            as in the released code, or ``carried`` over to the next timestep as the paper's
            formula for δ asks.

    Attributes:
        alphas_cumprod: ᾱ_t, float64, (T,).
        timesteps: The reverse steps chosen by :meth:`set_timesteps`, int64, largest first.

    Raises:
        ConfigurationError: ``reverse_step`` is neither.
    """

    order = 1

    @register_to_config
    def __init__(self, num_train_timesteps: int = 10, reverse_step: str = "constant") -> None:
        if reverse_step not in REVERSE_STEPS:
            raise ConfigurationError(
                f"reverse_step is {reverse_step!r}; it must be one of {', '.join(REVERSE_STEPS)}"
            )

        def alpha_bar(progress: float) -> float:
            angle = (progress + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2
            return math.cos(angle) ** 2

        steps = num_train_timesteps
        betas = [
            min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), MAX_BETA)
            for i in range(steps)
        ]
        self.alphas_cumprod = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)
        self.timesteps = torch.arange(steps - 1, -1, -1)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the reverse steps.

        A number of steps becomes the smallest stride that gives it, as in the released code: of
        10 training steps, 5 means t = 8, 6, 4, 2, 0 and 3 means t = 8, 4, 0. An explicit list
        frees the starting noise level from the number of steps.

        Args:
            num_inference_steps: Number of reverse steps; alternative to ``timesteps``.
            device: Where :attr:`timesteps` lives.
            timesteps: Strictly decreasing steps within 0…T-1; alternative to
                ``num_inference_steps``.

        Raises:
            ConfigurationError: Neither or both are given, no stride gives that number, or the
                list is not strictly decreasing within the schedule.
        """
        total = self.config.num_train_timesteps
        if (num_inference_steps is None) == (timesteps is None):
            raise ConfigurationError(
                "give either num_inference_steps or timesteps, not both or neither"
            )
        if num_inference_steps is not None:
            timesteps = self._strided(num_inference_steps)
        chosen = [int(t) for t in timesteps or ()]
        decreasing = all(a > b for a, b in itertools.pairwise(chosen))
        if not chosen or not decreasing or chosen[0] >= total or chosen[-1] < 0:
            raise ConfigurationError(
                f"timesteps {chosen} must decrease strictly within {total - 1}…0"
            )
        self.timesteps = torch.tensor(chosen, device=device)

    def _strided(self, number: int) -> list[int]:
        total = self.config.num_train_timesteps
        strides = {len(range(0, total, stride)): stride for stride in range(total - 1, 0, -1)}
        if number not in strides:
            raise ConfigurationError(
                f"{number} reverse steps do not fit a {total}-step schedule by a stride; "
                f"choose one of {sorted(strides)}"
            )
        return list(range(0, total, strides[number]))[::-1]

    def noise_scale(self, timesteps: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
        """sqrt(1 - ᾱ_t), shaped (B, 1, 1, 1) or (1, 1, 1, 1), in the dtype and place of ``like``.

        Args:
            timesteps: int64 (B,) or one int, each in 0…T-1.
            like: Any tensor of the wanted dtype and device.
        """
        alpha_bar = self.alphas_cumprod[torch.as_tensor(timesteps).cpu()]
        scale = (1 - alpha_bar).sqrt().reshape(-1, 1, 1, 1)
        return to_device(scale, like.device, like.dtype)

    def shrinkage(self, timesteps: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
        """c_t = (1 - sqrt(ᾱ_t)) / sqrt(1 - ᾱ_t), the share of -z in δ; shaped and placed as
        :meth:`noise_scale` does.

        Args:
            timesteps: int64 (B,) or one int, each in 0…T-1.
            like: Any tensor of the wanted dtype and device.
        """
        alpha_bar = self.alphas_cumprod[torch.as_tensor(timesteps).cpu()]
        shrink = (1 - alpha_bar.sqrt()) / (1 - alpha_bar).sqrt()
        return to_device(shrink.reshape(-1, 1, 1, 1), like.device, like.dtype)

    def deviation(
        self,
        original: torch.Tensor,
        noise: torch.Tensor,
        mask: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """The training target δ = (1 - m) ⊙ (η - (1 - sqrt(ᾱ_t)) / sqrt(1 - ᾱ_t) · z).

        Args:
            original: Clean latents z, float (B, C, h, w).
            noise: η, same shape.
            mask: m, (B, 1, h, w); 1 keeps a position, 0 corrupts it.
            timesteps: int64 (B,) in 0…T-1.

        Returns:
            δ, (B, C, h, w), zero wherever the mask keeps.
        """
        return (1 - mask) * (noise - self.shrinkage(timesteps, original) * original)

    def add_deviation(
        self, original: torch.Tensor, deviation: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Forward process z_t = z + sqrt(1 - ᾱ_t) · δ.

        Args:
            original: Clean latents z, float (B, C, h, w).
            deviation: δ, same shape.
            timesteps: int64 (B,) in 0…T-1.

        Returns:
            z_t, (B, C, h, w).
        """
        return original + self.noise_scale(timesteps, original) * deviation

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> DeCoDiffSchedulerOutput | tuple[torch.Tensor]:
        """One reverse step: remove the predicted deviation, then put back its smaller part.

        ``ẑ_0 = z_t - sqrt(1 - ᾱ_t) δ̂`` and ``z_t' = ẑ_0 + sqrt(1 - ᾱ_t') δ̂'``; the last step
        returns ẑ_0. With ``reverse_step`` ``constant`` δ̂' = δ̂, as in the released code. But δ
        depends on t (see :meth:`deviation`), and ``carried`` follows it:
        ``δ̂' = δ̂ - (c_t' - c_t) · ẑ_0``. Where all is corrupted, the true δ lands on the forward
        process at t' exactly. The mask is unknown at inference, so positions that were never
        corrupted change too.

        Args:
            model_output: δ̂, (B, C, h, w).
            timestep: The present t; must be one of :attr:`timesteps`.
            sample: z_t, (B, C, h, w).
            return_dict: Return a dataclass rather than a tuple.

        Raises:
            ConfigurationError: The timestep is not among those chosen.
        """
        steps = self.timesteps.tolist()
        if int(timestep) not in steps:
            raise ConfigurationError(f"timestep {int(timestep)} is not one of the chosen {steps}")
        following = steps[steps.index(int(timestep)) + 1 :]
        clean = sample - self.noise_scale(int(timestep), sample) * model_output
        previous = clean
        if following:
            deviation = model_output
            if self.config.reverse_step == "carried":
                change = self.shrinkage(following[0], clean) - self.shrinkage(timestep, clean)
                deviation = deviation - change * clean
            previous = clean + self.noise_scale(following[0], sample) * deviation
        if not return_dict:
            return (previous,)
        return DeCoDiffSchedulerOutput(prev_sample=previous, pred_original_sample=clean)


@torch.no_grad()
def reverse_process(
    unet: DeCoDiffUNet,
    scheduler: DeCoDiffScheduler,
    sample: torch.Tensor,
    category_ids: torch.Tensor,
) -> torch.Tensor:
    """Walk the scheduler's timesteps from a latent to its correction (paper, Algorithm 2).

    Args:
        scheduler: Its timesteps are set.
        sample: Standardised latents as the network was trained on, float32 (N, C, h, w), on its
            device.
        category_ids: int64 (N,), on the same device.

    Returns:
        ẑ_0, float32 (N, C, h, w), standardised too.
    """
    for timestep in scheduler.timesteps:
        deviation = unet(sample.to(unet.dtype), timestep, category_ids).float()
        sample = scheduler.step(deviation, timestep, sample)[0]
    return sample
