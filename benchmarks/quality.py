"""What the method reaches in a given time on one core, beside what it has to beat.

``python -m benchmarks.quality --env ENV --minutes 15 --seeds 0 1 2 --out FOLDER`` validates the
images and caches the latents of the environment, trains its recipe and the released one for that
time with each seed, and prints a table of the test figures. Both have the same latents, batch size
and way to fit the scoring. FOLDER keeps checkpoints and finished results, so that an interrupted
benchmark goes on. Steps are measured and then planned: leave the core to the benchmark alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from torch import nn

from benchmarks.released_network import ReleasedUNet, ResidualBlock, SpatialTransformer
from decodiff_pipeline.data.provenance import data_digest
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.released_network import released_name
from decodiff_pipeline.deco.unet import PRESETS
from decodiff_pipeline.deco.weights import digest
from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline
from decodiff_pipeline.evaluation.baselines import measure_baselines
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.metrics.summary import mean_over_categories
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring_fit import build_model
from decodiff_pipeline.training.setup import set_up_training
from decodiff_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.loop import TrainingRun

PROJECT = Path(__file__).parent.parent
PARAMETERS = (
    "preprocessing", "autoencoder", "latent_cache", "training", "scoring", "evaluation"
)  # fmt: skip
STAGES = "data_validation,latent_caching"
ARMS = ("ours", "released")
METRICS = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "pixel_aupro": "AUPRO"}
# What the released recipe has in place of the paper's defaults. The size is that of its command
# line's default, the smallest there is. It is not given its batch size of 128, which would leave a
# quarter of the steps.
RELEASED = {
    "preset": "XS",
    "cosine_length": 1.5,
    "gradient_clip": None,
    "ema_decay": 0.0,
    "bfloat16": False,
}
Figure = list[float | None]  # and the ends of its interval
Figures = dict[str, dict[str, Figure]]  # category -> metric


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=PROJECT)
    parser.add_argument("--env", default=None, help="environment in conf/")
    parser.add_argument("--minutes", type=float, default=15, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out, project = options.out.resolve(), options.project.resolve()
    os.chdir(project)
    bootstrap_project(project)
    benchmark = Benchmark(project, options.env, out, options.minutes)
    rows = [benchmark.result(arm, seed) for seed in options.seeds for arm in options.arms]
    print("\n".join(table(rows)))


class Benchmark:
    """Trainings of one length on the data set of an environment.

    Args:
        out: Where their checkpoints and results are kept.
        minutes: The length.
    """

    def __init__(self, project: Path, env: str | None, out: Path, minutes: float) -> None:
        command = [sys.executable, "-m", "kedro", "run", "--pipelines", STAGES]
        subprocess.run([*command, "--env", env or "local"], cwd=project, stdout=2, check=True)
        session: Any = KedroSession.create(project, env=env)
        with session:
            catalog = session.load_context().catalog
            self.manifest = catalog.load("validated_manifest")
            self.raw, self.cache = catalog.load("raw_images"), catalog.load("latent_cache")
            self.parameters = {name: catalog.load(f"params:{name}") for name in PARAMETERS}
        self.data = {
            "manifest": self.manifest,
            "images": self.raw.of(self.manifest),
            "geometry": self.parameters["preprocessing"],
        }
        self.out, self.minutes = out, minutes

    def result(self, arm: str, seed: int) -> dict[str, Any]:
        """Figures of one training on the test images, from the file if they are there."""
        file, config = self.out / "results.jsonl", self._config(arm, seed)
        identity = self._identity(arm, config)
        for line in file.read_text().splitlines() if file.is_file() else []:
            row = json.loads(line)
            if row["identity"] == identity:
                return row
        print(f"{arm}, seed {seed}: {self.minutes:g} minutes", file=sys.stderr, flush=True)
        row = {"identity": identity, "arm": arm, "seed": seed, "minutes": self.minutes}
        row |= self._trained(arm, config, self.out / f"{arm}-{seed}-{identity}")
        with file.open("a") as results:  # two processes may share the folder
            results.write(json.dumps(row) + "\n")
        return row

    def _config(self, arm: str, seed: int) -> TrainingConfig:
        """The recipe of an arm: the environment's, or the released one."""
        ours: TrainingConfig = self.parameters["training"]
        kept = ("batch_size", "log_every", "checkpoint_every")
        recipe = RELEASED | {name: getattr(ours, name) for name in kept}
        length = {"steps": None, "epochs": None, "max_minutes": self.minutes}
        run = {"seed": seed, "threads": 1, "resume": "if_same", "keep_checkpoints": 1}
        chosen = {**ours.model_dump(), "init_from": None} if arm == "ours" else recipe
        return TrainingConfig(**{**chosen, **length, **run})

    def _identity(self, arm: str, config: TrainingConfig) -> str:
        """What decides the figures: images, parameters, the autoencoder's weights."""
        others = [self.parameters[name] for name in PARAMETERS if name != "training"]
        weights = digest(self.parameters["autoencoder"])
        said = repr((arm, config.identity(), others, weights, data_digest(self.manifest)))
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def _trained(self, arm: str, config: TrainingConfig, folder: Path) -> dict[str, Any]:
        autoencoder = self.parameters["autoencoder"]
        run = set_up_training(
            cache=self.cache,
            store=CheckpointStore(folder / "checkpoints"),
            autoencoder=autoencoder,
            latents=self.parameters["latent_cache"],
            config=config,
            **self.data,
        )
        trained = run if arm == "ours" else released_run(run)
        unet = trained.run()
        if arm == "released":
            unet = with_released_weights(run.unet, unet)
        scoring = self.parameters["scoring"]
        model = build_model(load_autoencoder(autoencoder), unet, config=scoring, **self.data)
        scored = self._scored(model, folder / "predictions")
        found = assess(
            scored,
            self.manifest,
            self.data["images"],
            {"categories": {}},  # no thresholds
            self.parameters["evaluation"],
        ).metrics
        measured = {arm: figures({**found["categories"], "mean": found["mean"]})}
        if arm == "ours":
            measured |= self._baselines(model, folder / "baseline")
        return {"steps": trained.total, "parameters": unet.num_parameters(), "figures": measured}

    def _baselines(self, model: DeCoDiffPipeline, folder: Path) -> dict[str, Figures]:
        scored = self._scored(AutoencoderBaseline.of(model), folder)
        config = self.parameters["evaluation"]
        found, _ = measure_baselines(autoencoder=scored, config=config, **self.data)
        return {
            name: figures({**found[name], "mean": mean_over_categories(found[name])})
            for name in ("pca", "autoencoder")
        }

    def _scored(self, model: DeCoDiffPipeline, folder: Path) -> PredictionStore:
        store, seen = PredictionStore(folder), self.raw.of(self.manifest, model.bit_depths)
        test = self.manifest[self.manifest["split"] == "test"]
        score_images(model, test, seen, store, self.parameters["evaluation"])
        return store


def figures(rows: Mapping[str, Mapping[str, Any]]) -> Figures:
    """Each metric of each category with the ends of its interval, where there is one."""
    return {
        category: {
            metric: [row[metric], *(row.get("intervals", {}).get(metric) or [None, None])]
            for metric in METRICS
        }
        for category, row in rows.items()
    }


class ReleasedNetwork(ReleasedUNet):
    """The released network as the training loop takes one; it sees the latents as they are."""

    def standardise(self, latents: torch.Tensor) -> torch.Tensor:
        """The latents themselves."""
        return latents


def released_run(run: TrainingRun) -> TrainingRun:
    """The same training of the released network, from the initial weights of its code.

    There the last convolution of every block and of the network starts at zero. It does not
    validate while it trains.
    """
    size, config = PRESETS[run.config.preset], run.config
    torch.manual_seed(config.seed)
    unet = ReleasedNetwork(
        len(run.unet.categories),
        size.base_channels,
        size.num_heads,
        size.context_dim,
        config.dropout,
        gradient_checkpointing=True,
        in_channels=run.unet.config.in_channels,
    )
    for convolution in _last_convolutions(unet):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    identity = {**run.identity, "network": "released"}
    validation = Validation([], config.corruption)
    return replace(run, unet=unet, validation=validation, identity=identity, log=[])


def _last_convolutions(unet: ReleasedUNet) -> Iterator[nn.Conv2d]:
    for module in unet.modules():
        if isinstance(module, ResidualBlock):
            yield module.out_layers[-1]
        elif isinstance(module, SpatialTransformer):
            yield module.proj_out
    yield unet.out[-1]


def with_released_weights(unet: DeCoDiffUNet, released: ReleasedUNet) -> DeCoDiffUNet:
    """Our network of the same size with a released network's weights: the same function."""
    state = released.state_dict()
    unet.load_state_dict({name: state[released_name(name)] for name in unet.state_dict()})
    return unet.eval()


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: the mean over the seeds, of the intervals' ends too, and the standard deviation."""
    columns: dict[str, list[Figures]] = {}
    for row in rows:
        for name, found in row["figures"].items():
            columns.setdefault(name, []).append(found)
    yield "| | | " + " | ".join(columns) + " |"
    yield "|---|---" + "|---" * len(columns) + "|"
    for category in next(iter(columns.values()))[0]:
        for metric, label in METRICS.items():
            cells = (
                _cell([each[category][metric] for each in found]) for found in columns.values()
            )
            yield f"| {category} | {label} | " + " | ".join(cells) + " |"
    yield ""
    for row in rows:
        yield (
            "{arm}, seed {seed}: {minutes:g} minutes, {steps} steps, "
            "{parameters:,} parameters".format(**row)
        )


def _cell(seeds: Sequence[Figure]) -> str:
    if any(figure is None for figure, *_ in seeds):
        return ""
    figure, *ends = (
        None if None in values else statistics.fmean(values) for values in zip(*seeds, strict=True)
    )
    text = f"{figure:.3f}"
    if None not in ends:
        text += " ({:.3f} to {:.3f})".format(*ends)
    if len(seeds) > 1:
        text += f" ± {statistics.stdev(figure for figure, *_ in seeds):.3f}"
    return text


if __name__ == "__main__":
    main()
