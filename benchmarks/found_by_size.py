"""Whether a trained model bears the visibility check out: real defects found, by their size.

``python -m benchmarks.found_by_size --env ENV`` reads what ``visibility`` and ``evaluation`` wrote
for the environment. For each category it prints the share of defective test images whose score is
at or above the category's threshold, below and above the size that the check calls visible; the
size is the side (square root of the area) of the largest region of the mask.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from scipy import ndimage

from benchmarks.score_choice import PROJECT
from decodiff_pipeline.visibility.measure import smallest_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

EIGHT_CONNECTED = np.ones((3, 3))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default=None, help="environment in conf/")
    options = parser.parse_args()
    bootstrap_project(PROJECT)
    session: Any = KedroSession.create(PROJECT, env=options.env)
    with session:
        for line in table(session.load_context().catalog):
            print(line, flush=True)


def table(catalog: Any) -> Iterator[str]:
    """The lines of the table; sizes in pixels of the original image."""
    report, thresholds = catalog.load("visibility"), catalog.load("thresholds")
    config = catalog.load("params:visibility")
    manifest, images = catalog.load("validated_manifest"), catalog.load("raw_images")
    record = catalog.load("evaluation_record")
    masks = manifest.set_index("path")["mask_path"]
    yield "| category | visible from, px | found below | found from there on | good flagged |"
    yield "|---|---|---|---|---|"
    for category, rows in record[record["split"] == "test"].groupby("category"):
        threshold = thresholds["categories"][category]["threshold"]
        row = smallest_row(report["defects"][category], f"grey_{config.contrast}")
        limit = (row["width"] * row["height"]) ** 0.5 if row else np.inf
        defective = rows[rows["path"].map(masks).notna()]
        sides = _sides(defective, masks, images)
        found = (defective["score"] >= threshold).to_numpy()
        good = rows[rows["label"] == "good"]["score"] >= threshold
        parts = [_share(found[chosen]) for chosen in (sides < limit, sides >= limit)]
        yield f"| {category} | {limit:.0f} | {' | '.join(parts)} | {_share(good)} |"


def _sides(defective: pd.DataFrame, masks: pd.Series, images: Any) -> np.ndarray:
    sides = []
    for path in defective["path"]:
        labels, count = ndimage.label(images.read_mask(masks[path]), structure=EIGHT_CONNECTED)
        sides.append(np.bincount(labels.ravel(), minlength=count + 1)[1:].max(initial=0) ** 0.5)
    return np.array(sides)


def _share(found: Any) -> str:
    return f"{np.mean(found):.2f} of {len(found)}" if len(found) else "none"


if __name__ == "__main__":
    main()
