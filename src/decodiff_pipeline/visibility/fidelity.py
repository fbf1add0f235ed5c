"""What encoding and decoding keep of images, and the time that they take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from decodiff_pipeline.deco.autoencoder import decode, encode, reduction
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.metrics.image_quality import LUMA
from decodiff_pipeline.metrics.reconstruction import has_colour, psnr, saturation_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from decodiff_pipeline.deco.autoencoder import Autoencoder

FLAT = 1e-3  # mean squared gradient, in squared levels, of an image without any structure
EXACT = 100.0  # dB, where the true figure is infinite
TIMED_BATCH = 4


@dataclass(frozen=True)
class Fidelity:
    """How faithful one reconstruction is."""

    psnr: float  # peak signal-to-noise ratio over all channels, in dB; at most 100
    # See :func:`~decodiff_pipeline.metrics.reconstruction.saturation_kept`; None of an image
    # without colour.
    saturation_kept: float | None
    # Energy of the luma's gradient over that of the image; None of an image without any structure.
    sharpness_kept: float | None


def fidelity(square: np.ndarray, again: np.ndarray, min_colour: int) -> Fidelity:
    """Compares an image with its reconstruction.

    Args:
        again: Float (S, S, 3) in grey levels, as :func:`reconstruct` gives it.
        min_colour: Levels between the channels of the most colourful hundredth of the pixels from
            which on an image has colour.
    """
    pair = (square.astype(np.float64), again)
    first, second = (torch.from_numpy(one / 127.5 - 1)[None].movedim(3, 1) for one in pair)
    coloured = has_colour(first, min_colour)[0]
    before, after = (_gradient_energy(one @ np.array(LUMA)) for one in pair)
    return Fidelity(
        psnr=min(float(psnr(first, second)[0]), EXACT),
        saturation_kept=float(saturation_kept(first, second)[0]) if coloured else None,
        sharpness_kept=after / before if before > FLAT else None,
    )


def _gradient_energy(luma: np.ndarray) -> float:
    return float(np.square(np.diff(luma, axis=0)).mean() + np.square(np.diff(luma, axis=1)).mean())


def reconstruct(
    autoencoder: Autoencoder, squares: Sequence[np.ndarray], batch_size: int
) -> np.ndarray:
    """What encoding and decoding make of images.

    Returns:
        float64 (N, S, S, 3) within 0…255, not rounded.
    """
    parts = []
    for start in range(0, len(squares), batch_size):
        batch = to_tensor(squares[start : start + batch_size])
        latents, _ = encode(autoencoder, batch.contiguous(memory_format=torch.channels_last))
        decoded = decode(autoencoder, latents).clamp(-1, 1).double()
        parts.append(((decoded + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def timings(
    autoencoder: Autoencoder, image_size: int, preset: str, reverse_steps: int
) -> dict[str, float]:
    """Seconds that one square takes on this machine, in a batch of 4.

    Args:
        preset: Size of the network; its weights are of no account and it is not initialised.
        reverse_steps: Forward passes of the network for an image.

    Returns:
        ``encode``, ``decode``, ``network`` (one forward pass), and ``image``, which is encode +
        2 decode + reverse steps · network, as scoring does it.
    """
    device, side = autoencoder.device, image_size // reduction(autoencoder)
    channels = autoencoder.config.latent_channels
    with torch.device("meta"):
        unet = build_unet(preset, ["any"], side, channels, 0.0).eval()
    unet.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*unet.parameters(), *unet.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    latents = torch.zeros(TIMED_BATCH, channels, side, side, device=device)
    images = torch.zeros(TIMED_BATCH, 3, image_size, image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    categories = torch.zeros(TIMED_BATCH, dtype=torch.long, device=device)
    works = {
        "encode": lambda: encode(autoencoder, images),
        "decode": lambda: decode(autoencoder, latents),
        "network": lambda: unet(latents, 5, categories),
    }
    with torch.no_grad():  # of two runs the faster one: the first sets up what the second uses
        seconds = {
            name: min(busy_seconds(work), busy_seconds(work)) / TIMED_BATCH
            for name, work in works.items()
        }
    total = seconds["encode"] + 2 * seconds["decode"] + reverse_steps * seconds["network"]
    return seconds | {"image": total}


def busy_seconds(work: Callable[[], object]) -> float:
    """How long some work with torch takes on a machine that does nothing else.

    On a processor that others use as well, the time that it worked for this process counts,
    divided by torch's threads, where that is less than the time that went by.
    """
    started, busy = time.perf_counter(), time.process_time()
    work()
    if resolve_device() == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - started
    threads = torch.get_num_threads()
    return min(time.perf_counter() - started, (time.process_time() - busy) / threads)
