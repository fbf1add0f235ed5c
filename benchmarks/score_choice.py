"""Whether the choice of image scores on synthetic defects agrees with one on real defects.

``python -m benchmarks.score_choice --env ENV`` reads the environment's trained model, manifest and
images. Every candidate is measured on synthetic defects in val images, as they are drawn now and
as they were until version 2 of the drawing, and on the test images. Prints Spearman's rank
correlation over all candidates between the two image AUROCs, and what each choice gives on test.
Test decides nothing here.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from scipy.stats import spearmanr

from decodiff_pipeline.data.synthetic_defects import VERSION
from decodiff_pipeline.experiments.discrepancy_cache import cache_discrepancies
from decodiff_pipeline.metrics.exact import image_metrics
from decodiff_pipeline.training.scoring_choice import (
    CANDIDATES,
    Drawn,
    auroc,
    choose_image_scores,
    score_all,
)
from decodiff_pipeline.training.scoring_fit import draw_defects, measure_good

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from decodiff_pipeline.deco.config import DiscrepancyConfig
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

PROJECT = Path(__file__).parent.parent
# What the choice was made among until version 2, for all categories alike.
BEFORE = [
    place
    for place, score in enumerate(CANDIDATES)
    if score.level_power == 0 and score.top_share <= 0.05
]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default=None, help="environment in conf/")
    parser.add_argument("--images", type=int, default=None, help="test images of a label, at most")
    options = parser.parse_args()
    bootstrap_project(PROJECT)
    session: Any = KedroSession.create(PROJECT, env=options.env)
    with session:
        catalog = session.load_context().catalog
        for line in tables(catalog, options.images):
            print(line, flush=True)


def tables(catalog: Any, most: int | None) -> Iterator[str]:
    """The lines of both tables."""
    manifest, images = catalog.load("validated_manifest"), catalog.load("raw_images")
    config, model = catalog.load("params:scoring"), catalog.load("decodiff_model")
    model.set_progress_bar_config(disable=True)
    common = asdict(config.discrepancy.image_score(""))
    given = replace(model.discrepancy, image_scores={}, **common)
    good = measure_good(model, manifest, images, config)
    before = draw_defects(model, good, manifest, images, config, VERSION).smoothed(given)
    now = draw_defects(model, good, manifest, images, config).smoothed(given)
    test = measured_on_test(model, given, test_rows(manifest, most), images)
    found = {name: measured(maps, given) for name, maps in (("before", before), ("now", now))}
    yield "| category | rank correlation before | now |"
    yield "|---|---|---|"
    for place, category in [*enumerate(model.categories), (None, "mean")]:
        both = [_correlation(found[name], test, place) for name in ("before", "now")]
        yield f"| {category} | {both[0]:.2f} | {both[1]:.2f} |"
    yield ""
    old = BEFORE[int(found["before"][:, BEFORE].mean(axis=0).argmax())]
    chosen, _ = choose_image_scores(given, now, model.categories)
    yield "| category | chosen before | test image AUROC | chosen now | test image AUROC |"
    yield "|---|---|---|---|---|"
    means = []
    for place, category in enumerate(model.categories):
        score = chosen.image_score(category)
        new = [*CANDIDATES, score].index(score)
        if new == len(CANDIDATES):
            continue  # the one that was given, if it is no candidate
        means.append((test[place, old], test[place, new]))
        yield (
            f"| {category} | {_name(CANDIDATES[old])} | {means[-1][0]:.3f} "
            f"| {_name(score)} | {means[-1][1]:.3f} |"
        )
    yield "| mean | | {:.3f} | | {:.3f} |".format(*np.mean(means, axis=0))


def measured(maps: Drawn, config: DiscrepancyConfig) -> np.ndarray:
    """Synthetic image AUROC, float64 (categories, candidates)."""
    scores = score_all(config, maps, CANDIDATES)
    return np.stack([auroc(scores, maps, each) for each in np.unique(maps.category_ids)])


def test_rows(manifest: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """Certain test images, categories together."""
    rows = manifest[(manifest["split"] == "test") & manifest["label"].isin(["good", "defective"])]
    rows = rows.sort_values(["category", "sha256"], kind="stable")
    return rows.groupby(["category", "label"]).head(most or len(rows))


def measured_on_test(
    model: DeCoDiffPipeline, config: DiscrepancyConfig, rows: pd.DataFrame, images: Any
) -> np.ndarray:
    """Test image AUROC, float64 (categories, candidates)."""
    numbers = {category: number for number, category in enumerate(model.categories)}
    ids = rows["category"].map(numbers).to_numpy(copy=True)
    nothing = np.zeros(0, int)
    with tempfile.TemporaryDirectory() as name:
        found = cache_discrepancies(model, rows, images, Path(name), batch_size=32)
        pixel, latent = np.array(found.pixel), np.array(found.latent)
    if config.normalisation == "position":
        normalised = model.reference.normalise(*map(torch.from_numpy, (ids, pixel, latent)))
        pixel, latent = (maps.numpy() for maps in normalised)
    maps = Drawn(ids, nothing, pixel, latent, nothing).smoothed(config)
    scores, defective = score_all(config, maps, CANDIDATES), (rows["label"] == "defective").array
    return np.array([
        [image_metrics(each[ids == number], defective[ids == number])["image_auroc"]
         for each in scores]
        for number in range(len(numbers))
    ])  # fmt: skip


def _correlation(synthetic: np.ndarray, real: np.ndarray, place: int | None) -> float:
    pair = [each.mean(axis=0) if place is None else each[place] for each in (synthetic, real)]
    return float(spearmanr(*pair).statistic)


def _name(score: Any) -> str:
    return (
        f"{score.score_from}, {score.top_share:g}, {score.level_power:g}, {score.level_sigma:.3g}"
    )


if __name__ == "__main__":
    main()
