"""How time and memory grow with the number of images.

``python -m benchmarks.scale 1000 10000`` sends procedural images of 128² through the stages of
``kedro run`` in a folder of its own, in one process of one thread, and deletes them afterwards.
``--made-up`` leaves out training and scoring: predictions are made up for the metrics and the
report. ``--tables`` leaves out the images as well: only what is done with tables of them is
measured (`benchmarks.scale_tables`). The figures go to ``scale.json``, from which every call draws
``docs/images/scale.svg`` and prints the table of ``docs/scaling.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.scale_tables import STAGES as tables
from decodiff_pipeline.data.procedural import procedural_image
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore, write_part

PROJECT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "scale.json"
PLOT = PROJECT / "docs" / "images" / "scale.svg"
SIDE = 128
DIFFERENT = 200  # pictures; each image is one of them, shifted and with noise of its own
PART = 1024  # images of which predictions are written together
INTERVAL = 0.1  # seconds between two looks at the memory
PARAMETERS = """
data: {layout: folder, workers: 1}
compute: {device: cpu, processes: 1, threads: 1}
latent_cache: {views: 1}
"""
KEDRO = [sys.executable, "-m", "kedro", "run", "--pipelines"]
EVALUATION = [*KEDRO, "evaluation", "--nodes"]
DVC = [sys.executable, "-m", "dvc"]
STAGES = {
    "manifest": [*KEDRO, "data_validation", "--to-nodes", "build_manifest"],
    "checks, near-duplicates": [*KEDRO, "data_validation", "--from-nodes", "validate_images"],
    "dvc add": [*DVC, "add", "--quiet", "data/01_raw/scale"],
    "latent caching": [*KEDRO, "latent_caching"],
    "50 training steps, scoring fit": [*KEDRO, "training", "--params", "training.steps=50"],
    "scoring": [*EVALUATION, "score_images"],
    "autoencoder's baseline": [*EVALUATION, "score_baseline"],
    "review of training images": [*EVALUATION, "review_training_images"],
    "monitoring reference": [
        *EVALUATION, "make_monitoring_reference,measure_synthetic_localisation",
    ],
    "PCA and baselines": [*EVALUATION, "measure_baselines"],
    "metrics": [*EVALUATION, "fit_thresholds,compute_metrics"],
    "report": [*EVALUATION, "compare_models,draw_report,summarise,summarise_run,tabulate"],
}  # fmt: skip
NETWORK = list(STAGES)[4:9]
TABLES = [sys.executable, "-m", "benchmarks.scale_tables"]
# What the network's stages would have left for the others.
EMPTY = ("08_reporting/scale/synthetic_metrics.json", "08_reporting/scale/training_review.json")


def main(arguments: list[str]) -> None:
    """Measure the numbers that are asked for; draw and print what has been measured so far."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("images", nargs="*", type=int, help="numbers of images, such as 1000 10000")
    parser.add_argument("--made-up", action="store_true", help="neither training nor scoring")
    parser.add_argument("--tables", action="store_true", help="tables of images, without images")
    parser.add_argument(
        "--without", nargs="+", choices=STAGES, default=[], metavar="STAGE",
        help=f"leave these out: {', '.join(STAGES)}",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    left_out = {*options.without, *(NETWORK if options.made_up else ())}
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for count in options.images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if not options.tables:
                set_up(folder, count)
            stages = {f"{stage} (tables alone)": [*TABLES, stage, str(count)] for stage in tables}
            for stage, command in (stages if options.tables else STAGES).items():
                if stage in left_out:
                    continue
                if options.made_up and stage == "PCA and baselines":
                    make_predictions(folder)
                record = {"images": count, "stage": stage, **measured(folder, command)}
                print(json.dumps(record), flush=True)
                same = [(each["images"], each["stage"]) == (count, stage) for each in records]
                records = [each for each, old in zip(records, same, strict=True) if not old]
                records.append(record)
                RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    draw(pd.DataFrame(records))
    print(table(pd.DataFrame(records)))


def set_up(folder: Path, count: int) -> None:
    """A project with images, in a Git repository with DVC."""
    shutil.copy(PROJECT / "pyproject.toml", folder)
    for part in ("conf", "src"):
        shutil.copytree(PROJECT / part, folder / part)
    (folder / "conf" / "base" / "globals.yml").write_text("dataset: scale\n")
    (folder / "conf" / "local").mkdir(exist_ok=True)
    (folder / "conf" / "local" / "parameters.yml").write_text(PARAMETERS)
    for command in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    make_images(folder / "data" / "01_raw" / "scale" / "part", count)


def make_images(folder: Path, count: int) -> None:
    """Four of five images good, to train on; a tenth good and a tenth defective, to test."""
    pictures = [procedural_image(0, number, size=SIDE) for number in range(min(DIFFERENT, count))]
    for kind in ("good", "test_good", "spot", "masks/spot"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        shift = random.integers(0, SIDE, 2).tolist()
        image = np.roll(pictures[number % len(pictures)], shift, (0, 1)).astype(np.int16)
        image += random.integers(-8, 9, image.shape, np.int16)
        kind = {0: "test_good", 1: "spot"}.get(number % 10, "good")
        if kind == "spot":
            top, left = random.integers(0, SIDE - 16, 2)
            where = slice(top, top + 16), slice(left, left + 16)
            image[where] = 255 - image[where]
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[where] = 255
            Image.fromarray(mask).save(folder / "masks" / "spot" / f"{number:07d}.png")
        picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        picture.save(folder / kind / f"{number:07d}.png", compress_level=1)


def make_predictions(folder: Path) -> None:
    """Predictions of no model, for the calibration and test images."""
    data, random = folder / "data", np.random.default_rng(0)
    manifest = pd.read_parquet(data / "03_primary" / "scale" / "manifest.parquet")
    about = {
        "model": "made up",
        "parameters": 0,
        "network_sha256": "",
        "images_sha256": "",
        "preprocessing": PreprocessConfig(resize=SIDE, image_size=SIDE).facts(),
        "num_inference_steps": 0,
        "discrepancy": {},
    }
    maps = random.gamma(2.0, 0.05, (50, SIDE, SIDE)).astype(np.float32)
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)

    def found(rows: pd.DataFrame) -> Any:
        for label in rows["label"]:
            level = random.lognormal(0.5 * (label == "defective"), 0.3)
            yield maps[random.integers(len(maps))] * np.float32(level), np.float32(level), picture

    for name, splits in (("predictions", ["calibration", "test"]),
                         ("baseline_predictions", ["test"])):  # fmt: skip
        rows = manifest[manifest["split"].isin(splits)]
        store = PredictionStore(data / "07_model_output" / "scale" / name)
        parts = []
        for start in range(0, len(rows), PART):
            own = rows.iloc[start : start + PART]
            parts.append(store.work_folder / f"{start:08d}")
            parts[-1].mkdir(parents=True)
            write_part(parts[-1], own, found(own))
        store.replace(about, parts, rows.index)
    for file in EMPTY:
        (data / file).write_text("{}")


def measured(folder: Path, command: list[str]) -> dict[str, Any]:
    """What a command takes: seconds, and the largest memory in MiB beside what it maps of files."""
    environment = {
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # as the package sets it
        **os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true",
    }  # fmt: skip
    if "benchmarks.scale_tables" in command:
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(PROJECT), os.environ.get("PYTHONPATH", "")]
        )
    start, peak = time.perf_counter(), [0]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

        def watch() -> None:
            with suppress(OSError, IndexError):  # it has ended
                while True:
                    status = Path(f"/proc/{child.pid}/status").read_text()
                    peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) // 1024)
                    time.sleep(INTERVAL)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        watcher.join()
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()[-3000:]}")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": peak[0],
    }


def table(records: pd.DataFrame) -> str:
    """Milliseconds of processor time for each image, and peak memory, as Markdown."""
    counts = sorted(records["images"].unique())
    heads = [f"{count:,}" for count in counts]
    lines = [
        f"| stage | {' | '.join(f'ms/image at {head}' for head in heads)} | "
        f"{' | '.join(f'MiB at {head}' for head in heads)} |",
        f"|---|{'--:|' * 2 * len(counts)}",
    ]
    for stage in records["stage"].unique():
        own = records[records["stage"] == stage].set_index("images")
        ms = (1000 * own["cpu_seconds"] / own.index).round(2).reindex(counts)
        mib = own["peak_mib"].reindex(counts)
        cells = [*(f"{value:.3g}" for value in ms), *(f"{value:,.0f}" for value in mib)]
        lines.append(f"| {stage} | {' | '.join(c.replace('nan', '') for c in cells)} |")
    return "\n".join(lines)


def draw(records: pd.DataFrame) -> None:
    """Processor time for each image and peak memory over the number of images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    times, memory = figure.subplots(1, 2)
    for stage in records["stage"].unique():
        own = records[records["stage"] == stage].sort_values("images")
        times.plot(own["images"], 1000 * own["cpu_seconds"] / own["images"], "o-", label=stage)
        memory.plot(own["images"], own["peak_mib"], "o-", label=stage)
    for axes, title in ((times, "processor time, ms per image"), (memory, "peak memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="images", title=title)
        axes.grid(alpha=0.3)
    figure.legend(*times.get_legend_handles_labels(), loc="outside right", fontsize="x-small")
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
