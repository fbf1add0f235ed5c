"""Test figures of a training's checkpoints, as it went on.

``python -m benchmarks.learning_curve --env ENV`` reads the environment's manifest, images and
checkpoint folder; set ``training.keep_checkpoints`` high enough before training. Prints one JSON
line a checkpoint: the mean over categories and every category, with what was fitted on val images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.experiments.discrepancy_cache import cache_discrepancies, measure_from_cache
from decodiff_pipeline.training.scoring_fit import build_model
from decodiff_pipeline.training.state import averaged_network

if TYPE_CHECKING:
    from decodiff_pipeline.training.checkpoints import Checkpoint

PROJECT = Path(__file__).parent.parent
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro")


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default=None, help="environment in conf/")
    parser.add_argument("--steps", type=int, nargs="*", help="checkpoints; all by default")
    options = parser.parse_args()
    bootstrap_project(PROJECT)
    session: Any = KedroSession.create(PROJECT, env=options.env)
    with session:
        catalog = session.load_context().catalog
        store = catalog.load("checkpoint_store")
        for step in options.steps or store.steps():
            print(json.dumps({"step": step} | point(catalog, store.load(step))), flush=True)


def point(catalog: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """Figures of one checkpoint's moving average on the test images."""
    manifest, images = catalog.load("validated_manifest"), catalog.load("raw_images")
    config = catalog.load("params:evaluation")
    model = build_model(
        load_autoencoder(catalog.load("params:autoencoder")),
        averaged_network(checkpoint),
        manifest=manifest,
        images=images,
        geometry=catalog.load("params:preprocessing"),
        config=catalog.load("params:scoring"),
    )
    rows = manifest[(manifest["split"] == "test") & manifest["label"].isin(["good", "defective"])]
    rows = rows.sort_values("category", kind="stable")
    with tempfile.TemporaryDirectory() as name:
        cached = cache_discrepancies(model, rows, images, Path(name), config.batch_size)
        judged = measure_from_cache(model, cached, images, Path(name), config)
    return {
        "fit": model.config.scoring_fit,
        "mean": {metric: judged["mean"][metric] for metric in METRICS},
        **{
            category: {metric: figures[metric] for metric in METRICS}
            for category, figures in judged["categories"].items()
        },
    }


if __name__ == "__main__":
    main()
