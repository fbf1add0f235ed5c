"""Does training from a few cached views end where encoding every image anew would?

``python -m benchmarks.cached_views --data FOLDER --seeds 3 --views 1,4 --steps 400`` trains the
same network on the same images for the same steps, once from every number of cached views and once
encoding on the fly, and prints the held-out loss of each run as a line of JSON, then a table. The
seed decides weights, order of the images, masks and noise, and they are the same in all modes: the
modes differ in the views alone. The loss is measured on the unaugmented ``val`` images, with the
same ``--draws`` corruptions of each in every run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache, wanted_latents
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.data.transforms import AugmentationConfig
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.weights import EMBEDDED, AutoencoderConfig
from decodiff_pipeline.training.batches import Batch
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.objective import held_out_loss
from decodiff_pipeline.training.setup import set_up_training

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.deco.unet import DeCoDiffUNet

ON_THE_FLY = "on the fly"
TOLERANCE = 0.02


class Bench(NamedTuple):
    """What all the runs share."""

    options: argparse.Namespace
    manifest: pd.DataFrame
    images: ImageFolder
    cache: LatentCache
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig

    def latents(self, views: int) -> LatentCacheConfig:
        """How many views, in the precision and with the augmentation of the command line."""
        return LatentCacheConfig(
            views=views,
            augmentation=AugmentationConfig(
                max_translation=self.options.translation,
                translation_probability=self.options.translation_probability,
                rotate_180=self.options.rotate_180,
            ),
            bfloat16=self.options.bfloat16,
            synthetic_defects=0,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run all modes and seeds; exit code 1 where a mean is off by more than 2 %."""
    options = _options(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        bench = _bench(options, Path(name))
        records = []
        for seed in range(options.seeds):
            for views in (0, *options.views):
                records.append(_trained(bench, seed, views, Path(name)))
                print(json.dumps(records[-1]), flush=True)
    return _table(records)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of raw images")
    parser.add_argument("--layout", default="mvtec")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--autoencoder", default=EMBEDDED, help="embedded, a folder or a hub id")
    parser.add_argument("--bfloat16", action="store_true", help="run the autoencoder in bfloat16")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=lambda text: [int(part) for part in text.split(",")],
                        default=[1, 4], help="numbers of cached views, such as 1,4")  # fmt: skip
    parser.add_argument("--translation", type=int, default=4)
    parser.add_argument("--translation-probability", type=float, default=0.5)
    parser.add_argument("--rotate-180", action="store_true")
    parser.add_argument("--draws", type=int, default=16, help="corruptions of each val image")
    return parser.parse_args(arguments)


def _bench(options: argparse.Namespace, folder: Path) -> Bench:
    images = ImageFolder(options.data)
    data = DataConfig(layout=options.layout, val_fraction=0.2, calibration_fraction=0.0)
    bench = Bench(
        options,
        build_manifest(images, data),
        images,
        LatentCache(folder / "latents"),
        PreprocessConfig(options.image_size, options.image_size),
        AutoencoderConfig(options.autoencoder),
    )
    for views in sorted({1, *options.views}):
        start = time.perf_counter()
        encoded = fill_cache(
            bench.cache, manifest=bench.manifest, images=images, geometry=bench.geometry,
            autoencoder=bench.autoencoder, config=bench.latents(views),
        )  # fmt: skip
        seconds = round(time.perf_counter() - start, 1)
        print(
            json.dumps({"cached_views": views, "encoded": encoded, "seconds": seconds}), flush=True
        )
    return bench


def _trained(bench: Bench, seed: int, views: int, folder: Path) -> dict[str, Any]:
    """Train from ``views`` cached views, or on the fly where it is 0."""
    options, mode = bench.options, f"{views} cached" if views else ON_THE_FLY
    config = TrainingConfig(
        preset=options.preset, steps=options.steps, batch_size=options.batch_size,
        learning_rate=options.learning_rate, warmup=0.05, ema_decay=0.99, dropout=0.0,
        standardise_latents=True, latents="cached" if views else "on_the_fly",
        validate_every=options.steps, checkpoint_every=options.steps, threads=1,
        progress_bar=False, seed=seed,
    )  # fmt: skip
    run = set_up_training(
        bench.manifest, bench.cache, CheckpointStore(folder / f"{mode} {seed}"),
        images=bench.images, geometry=bench.geometry, autoencoder=bench.autoencoder,
        latents=bench.latents(views or 1), config=config,
    )  # fmt: skip
    start = time.perf_counter()
    unet = run.run()
    seconds = time.perf_counter() - start
    return {
        "mode": mode,
        "seed": seed,
        "held_out_loss": _held_out_loss(bench, unet, config),
        "epochs": round(options.steps / len(run.batches), 2),
        "images_per_second": round(options.steps * options.batch_size / seconds, 1),
    }


def _held_out_loss(bench: Bench, unet: DeCoDiffUNet, config: TrainingConfig) -> float:
    rows = bench.manifest.query("split == 'val' and label == 'good'")
    wanted = wanted_latents(bench.manifest, "val", bench.geometry, bench.autoencoder,
                            bench.latents(1))  # fmt: skip
    mean = bench.cache.reader([latent.key for latent in wanted]).moments(range(len(wanted))).mean
    categories = list(unet.config["categories"])
    ids = torch.tensor([categories.index(category) for category in rows["category"]])
    batches = [
        Batch(unet.standardise(latents.to(unet.device)), numbers.to(unet.device))
        for latents, numbers in zip(mean.split(64), ids.split(64), strict=True)
    ]
    # The number of a batch decides its corruption: repeated batches are further draws.
    return held_out_loss(
        unet, DeCoDiffScheduler(), batches * bench.options.draws, config.corruption
    )


def _table(records: list[dict[str, Any]]) -> int:
    """Print means and ratios to on-the-fly, paired by seed; 0 where every mean is within 2 %."""
    modes: dict[str, dict[int, dict[str, Any]]] = {record["mode"]: {} for record in records}
    for record in records:
        modes[record["mode"]][record["seed"]] = record
    reference, good = modes[ON_THE_FLY], True
    print("| latents | held-out loss by seed | mean | ratio by seed | mean ratio | images/s |")
    print("|---|---|---|---|---|---|")
    for mode, runs in modes.items():
        losses = [run["held_out_loss"] for run in runs.values()]
        ratios = [
            run["held_out_loss"] / reference[seed]["held_out_loss"] for seed, run in runs.items()
        ]
        speed = statistics.median(run["images_per_second"] for run in runs.values())
        print(f"| {mode} | {_row(losses)} | {statistics.mean(losses):.5f} | {_row(ratios)} "
              f"| {statistics.mean(ratios):.4f} | {speed:.1f} |")  # fmt: skip
        good &= abs(statistics.mean(ratios) - 1) <= TOLERANCE
    return 0 if good else 1


def _row(values: list[float]) -> str:
    return ", ".join(f"{value:.5f}" for value in values)


if __name__ == "__main__":
    raise SystemExit(main())
