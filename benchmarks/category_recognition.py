"""How well the category of an image is recognised from its latents, and another product refused.

``python -m benchmarks.category_recognition FOLDER… [--elpv]`` takes folders in the layout
``mvtec`` (and the solar cells of ``elpv-dataset``), each category's good training images split
as a project's are. For each category in turn a recogniser is fitted without it, too. Prints a
row for each category: the share of good and of defective test images that are recognised as what
they are, whatever the limit; that are refused; and the share of all its test images that are
refused by the recogniser that was fitted without it. Only the autoencoder is needed.

Tried on the shared sets and ELPV (good right, defective right, defective refused, left out refused,
at 5 % of good images refused): means and deviations of 2 x 2 cells, .92 .79 .36 .79; these and the
gradients, .99 .93 .46 .95; distances of 16 cells of which the worst half is left out, 1.0 .93 .36
.95; medians, spreads and gradients' medians of the whole, .99 .97 .30 .98; with the gradients'
quartiles, as it is, .99 .97 .25 .985; without the category's own covariance, .98 .97 .23 .99;
without covariances, .94 .82 .08 .82; one limit a category in place of a common multiple refuses
up to half of the good images of a category with five calibration images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import mean

from decodiff_pipeline.data.acquire import acquire_elpv
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.deco.recognition import latent_statistics, whole_square
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.category_recognition import MAX_IMAGES, fit_gaussians, set_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 32
SHARE = 10  # every tenth good training image calibrates, another tenth is left for val
MAX_TEST = 100  # good and defective test images of each category
COLUMNS = ("good right", "defective right", "good refused", "defective refused", "left out refused")

Statistics = dict[str, dict[str, np.ndarray]]  # category → split → (N, features)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", help="in the layout mvtec")
    parser.add_argument("--elpv", action="store_true", help="the solar cells of elpv-dataset, too")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--false-refusals", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    encoder = Encoder(options.image_size)
    found: Statistics = {}
    for folder in options.folders:
        found |= encoder.statistics(folder, "mvtec", random)
    if options.elpv:
        with tempfile.TemporaryDirectory() as name:
            found |= encoder.statistics(acquire_elpv(Path(name)), "elpv", random)
    rows = table(found, options.false_refusals)
    print("| category | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    rows["mean"] = {column: mean([row[column] for row in rows.values()]) for column in COLUMNS}
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in COLUMNS) + " |")
    print(f"{encoder.milliseconds():.1f} ms an image, encoding included")


class Encoder:
    """The embedded autoencoder, and how long it and the statistics take."""

    def __init__(self, image_size: int) -> None:
        self._geometry = PreprocessConfig(image_size, image_size)
        self._autoencoder = load_autoencoder(AutoencoderConfig(source="embedded"))
        self._times: list[float] = []

    def statistics(self, root: Path, layout: str, random: np.random.Generator) -> Statistics:
        """Statistics of the splits of each category of a raw data set."""
        source, images = get_layout(layout), ImageFolder(root)
        found = {}
        for category in source.categories(root):
            records = list(source.records(root, category))
            train, *test = splits(records, random)
            held = len(train) // SHARE
            parts = {
                "train": train[2 * held :][:MAX_IMAGES],
                "calibration": train[:held],
                "good": test[0][:MAX_TEST],
                "defective": test[1][:MAX_TEST],
            }
            found[category] = {name: self._of(paths, images) for name, paths in parts.items()}
        return found

    def milliseconds(self) -> float:
        """Median time of an image that is resized already."""
        return float(np.median(self._times)) * 1000

    def _of(self, paths: Sequence[str], images: ImageFolder) -> np.ndarray:
        found = []
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            squares = [whole_square(images.read(path), self._geometry) for path in part]
            begin = time.perf_counter()
            found.append(latent_statistics(encode(self._autoencoder, to_tensor(squares))[0]))
            self._times.append((time.perf_counter() - begin) / len(part))
        return np.concatenate(found)


def splits(records: Sequence[Any], random: np.random.Generator) -> list[list[str]]:
    """Paths of good training, good test and defective images, in random order."""
    groups: dict[str, list[str]] = {"train": [], "good": [], "defective": []}
    for record in records:
        if record.label == "defective":
            groups["defective"].append(record.path)
        elif record.label == "good":
            groups["good" if record.split == "test" else "train"].append(record.path)
    for paths in groups.values():
        random.shuffle(paths)
    if not groups["good"]:
        count = len(groups["train"]) // 5
        groups["good"], groups["train"] = groups["train"][:count], groups["train"][count:]
    return list(groups.values())


def table(found: Statistics, false_refusals: float) -> dict[str, dict[str, float]]:
    """A row of `COLUMNS` for each category."""
    names = list(found)
    recogniser = fitted([found[name] for name in names], false_refusals)
    rows = {}
    for number, name in enumerate(names):
        others = fitted([found[other] for other in names if other != name], false_refusals)
        row = {}
        for kind in ("good", "defective"):
            best, refused, _ = recogniser.classify(found[name][kind])
            row[f"{kind} right"], row[f"{kind} refused"] = mean(best == number), mean(refused)
        both = np.concatenate([found[name][kind] for kind in ("good", "defective")])
        row["left out refused"] = mean(others.classify(both)[1])
        rows[name] = row
    return rows


def fitted(statistics: Sequence[dict[str, np.ndarray]], false_refusals: float) -> Any:
    """A recogniser of some categories."""
    by_split = {split: [one[split] for one in statistics] for split in ("train", "calibration")}
    recogniser = fit_gaussians(by_split["train"])
    set_limits(recogniser, by_split, false_refusals)
    return recogniser


if __name__ == "__main__":
    main()
