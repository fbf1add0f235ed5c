"""Quality of the autoencoder's reconstructions, and the time per image."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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

FLAT = 1e-3  # gradient energy of an image without structure, in squared levels
EXACT = 100.0  # dB, instead of an infinite PSNR
TIMED_BATCH = 4


class Reconstructed(NamedTuple):
    """An image and its reconstruction."""

    image: np.ndarray  # uint8 (S, S, 3)
    reconstruction: np.ndarray  # float64 (S, S, 3) within 0…255, not rounded


@dataclass(frozen=True)
class Fidelity:
    """Quality of one reconstruction."""

    psnr: float  # peak signal-to-noise ratio over all channels, in dB; at most 100
    # See :func:`~decodiff_pipeline.metrics.reconstruction.saturation_kept`; None for an image
    # without colour.
    saturation_kept: float | None
    # Gradient energy of the luma, relative to the image; None for an image without structure.
    sharpness_kept: float | None


def fidelity(square: Reconstructed, min_colour: int) -> Fidelity:
    """Compare an image with its reconstruction; for ``min_colour`` see `VisibilityConfig`."""
    pair = (square.image.astype(np.float64), square.reconstruction)
    image, output = (torch.from_numpy(pixels / 127.5 - 1)[None].movedim(3, 1) for pixels in pair)
    coloured = has_colour(image, min_colour)[0]
    before, after = (gradient_energy(pixels @ np.array(LUMA)) for pixels in pair)
    return Fidelity(
        psnr=min(float(psnr(image, output)[0]), EXACT),
        saturation_kept=float(saturation_kept(image, output)[0]) if coloured else None,
        sharpness_kept=after / before if before > FLAT else None,
    )


def gradient_energy(grey: np.ndarray) -> float:
    """Sum of the mean squared differences of neighbouring pixels along both axes, (H, W)."""
    return float(sum(np.square(np.diff(grey, axis=axis)).mean() for axis in (0, 1)))


def reconstruct(
    autoencoder: Autoencoder, squares: Sequence[np.ndarray], batch_size: int
) -> list[Reconstructed]:
    """Encode and decode images, uint8 (S, S, 3) each."""
    found: list[np.ndarray] = []
    for start in range(0, len(squares), batch_size):
        batch = to_tensor(squares[start : start + batch_size])
        latents, _ = encode(autoencoder, batch.contiguous(memory_format=torch.channels_last))
        decoded = decode(autoencoder, latents).clamp(-1, 1).double()
        found += list(((decoded + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy())
    return list(map(Reconstructed, squares, found))


def timings(
    autoencoder: Autoencoder, image_size: int, preset: str, reverse_steps: int
) -> dict[str, float]:
    """Seconds per square on this machine, measured with a batch of 4.

    Args:
        preset: Size of the network. Its weights are constant, because they do not affect the time.
        reverse_steps: Forward passes of the network per image.

    Returns:
        ``encode``, ``decode``, ``network`` (one forward pass), and ``image`` = encode + 2 decode +
        reverse steps · network, as in scoring.
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
    with torch.no_grad():  # minimum of two runs; the first is a warm-up
        seconds = {
            name: min(busy_seconds(work), busy_seconds(work)) / TIMED_BATCH
            for name, work in works.items()
        }
    total = seconds["encode"] + 2 * seconds["decode"] + reverse_steps * seconds["network"]
    return seconds | {"image": total}


def busy_seconds(work: Callable[[], object]) -> float:
    """Time of a torch computation in seconds, corrected for other load on the CPU.

    On the CPU, the result is the smaller one of the wall-clock time and the process's CPU time
    divided by the number of torch threads.
    """
    started, busy = time.perf_counter(), time.process_time()
    work()
    if resolve_device() == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - started
    threads = torch.get_num_threads()
    return min(time.perf_counter() - started, (time.process_time() - busy) / threads)
