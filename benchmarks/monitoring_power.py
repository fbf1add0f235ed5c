"""How often the monitoring alarms: where nothing changed, and where something did.

``python -m benchmarks.monitoring_power --env ENV`` reads the environment's model and reference.
Every good test image, which nothing else has seen, is measured once as it is and once changed in
each way; then random samples of them are judged as `kedro run --pipelines monitoring` would. Prints
a table of alarms by sample size (images of each category).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from PIL import Image, ImageFilter

from decodiff_pipeline.monitoring.judgement import judge
from decodiff_pipeline.monitoring.recent import measure_recent
from decodiff_pipeline.monitoring.source import RecentSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.monitoring.config import MonitoringConfig

PROJECT = Path(__file__).parent.parent


def brighter(image: Image.Image) -> Image.Image:
    """Every value a fifth larger, as after a longer exposure."""
    return image.point(lambda value: min(255, round(1.2 * value)))


def blurred(image: Image.Image) -> Image.Image:
    """A Gaussian of 1/150 of the width, 2 pixels of ELPV's 300."""
    return image.filter(ImageFilter.GaussianBlur(image.width / 150))


def shifted(image: Image.Image, share: float = 0.03) -> Image.Image:
    """Down and right by 3 %; what enters at the border repeats the outermost pixels."""
    array = np.asarray(image)
    rows, columns = (max(1, round(share * side)) for side in array.shape[:2])
    padded = np.pad(array, ((rows, 0), (columns, 0), (0, 0))[: array.ndim], mode="edge")
    return Image.fromarray(padded[: array.shape[0], : array.shape[1]])


def turned(image: Image.Image) -> Image.Image:
    """By 1.5 degrees, in a frame of mirrored pixels, so that no black corner gives it away."""
    array = np.asarray(image)
    margin = max(array.shape[:2]) // 10
    frame = ((margin, margin), (margin, margin), (0, 0))[: array.ndim]
    wide = Image.fromarray(np.pad(array, frame, mode="symmetric"))
    wide = wide.rotate(1.5, Image.Resampling.BICUBIC)
    return wide.crop((margin, margin, margin + image.width, margin + image.height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing": lambda image: image,
    "brightness +20 %": brighter,
    "blur": blurred,
    "camera 3 % aside": shifted,
    "camera turned 1.5°": turned,
}
PRODUCT = "another product"


def main() -> None:
    """Measure, or read what was measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default=None, help="environment in conf/")
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 30, 50, 80])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--features", type=Path, help="parquet to keep the measured images in")
    options = parser.parse_args()
    bootstrap_project(PROJECT)
    session: Any = KedroSession.create(PROJECT, env=options.env)
    with session:
        catalog = session.load_context().catalog
        reference = catalog.load("monitored_reference").load()
        config = catalog.load("params:monitoring")
        if options.features and options.features.is_file():
            measured = pd.read_parquet(options.features)
        else:
            measured = measure_all(catalog, reference, config)
            if options.features:
                measured.to_parquet(options.features)
    show(measured, reference, config.model_copy(update={"unusual_images": 0}), options)


def measure_all(catalog: Any, reference: dict[str, Any], config: MonitoringConfig) -> pd.DataFrame:
    """The good test images with every change; `change` says which."""
    model, images = catalog.load("monitored_model"), catalog.load("raw_images")
    manifest = catalog.load("validated_manifest")
    good = manifest[(manifest["split"] == "test") & (manifest["label"] == "good")]
    parts = []
    for change, function in [*CHANGES.items(), (PRODUCT, CHANGES["nothing"])]:
        with tempfile.TemporaryDirectory() as name:
            for number, row in enumerate(good.itertuples()):
                category = (
                    other(str(row.category), reference) if change == PRODUCT else row.category
                )
                path = Path(name, str(category), f"{number:05d}.png")
                path.parent.mkdir(exist_ok=True)
                function(images.read(row.path)).save(path)
            recent = measure_recent(model, reference, RecentSource(Path(name)), config)
        parts.append(recent.assign(change=change))
    return pd.concat(parts, ignore_index=True)


def other(category: str, reference: dict[str, Any]) -> str:
    """The next category: in its folder the images of this one are another product's."""
    names = list(reference["categories"])
    return names[(names.index(category) + 1) % len(names)]


def show(
    measured: pd.DataFrame,
    reference: dict[str, Any],
    config: MonitoringConfig,
    options: argparse.Namespace,
) -> None:
    """Print a row a change, a column a sample size."""
    print("| alarms in", options.samples, "| " + " | ".join(map(str, options.sizes)), "|")
    print("|---" * (1 + len(options.sizes)) + "|")
    for change, rows in measured.groupby("change", sort=False):
        counts = []
        for size in options.sizes:
            alarms = 0
            for seed in range(options.samples):
                groups = rows.groupby("category")
                if groups.size().min() < size:
                    break
                sample = groups.sample(size, random_state=seed)
                alarms += judge(reference, sample, config)["retrain"]
            counts.append("-" if groups.size().min() < size else str(alarms))
        print(f"| {change} | " + " | ".join(counts) + " |", flush=True)


if __name__ == "__main__":
    main()
