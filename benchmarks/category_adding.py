"""What a category that is added to a trained model costs the others, over several seeds.

``python -m benchmarks.category_adding --base data/01_raw/elpv --layout elpv --add FOLDER`` trains a
model on the categories of a data set and makes it champion; then, for every seed, it trains on
these and the categories in FOLDER (layout ``mvtec``), once from the champion and once from
scratch. All of it is `kedro run`, as a user would, in a copy of the project. Prints a table of
what the metrics files say, and writes it as JSON into ``--results``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.layouts import get_layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROJECT = Path(__file__).parent.parent
NAME = "adding"
METRICS = ("image_auroc", "pixel_ap")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="raw data set trained on first")
    parser.add_argument("--layout", default="mvtec", help="of --base")
    parser.add_argument("--add", type=Path, required=True, help="raw data set that is added")
    parser.add_argument("--steps", type=int, default=150, help="of a training with the new ones")
    parser.add_argument("--base-steps", type=int, help="of the champion; default: conf/base")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("category_adding.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        known = copy_project(project, options.base, options.layout, options.add)
        results = {"champion": [champion(project, known, options.base_steps)]}
        set_categories(project, None)
        for seed in range(options.seeds):
            for start in ("champion", "scratch"):
                print(f"seed {seed}, from {start}", file=sys.stderr, flush=True)
                length = {"training.steps": options.steps}
                run = {"training.init_from": start, "training.seed": seed, **length}
                results.setdefault(f"from {start}", []).append(trained(project, run))
                options.results.write_text(json.dumps(results, indent=1))
    print(table(results))


def copy_project(project: Path, base: Path, layout: str, added: Path) -> list[str]:
    """Configuration, code and one raw data set of both; returns the categories of `base`."""
    for folder in ("conf", "src"):  # Kedro takes no link out of the project
        ignored = shutil.ignore_patterns("local", "__pycache__")
        shutil.copytree(PROJECT / folder, project / folder, ignore=ignored)
    (project / "conf" / "local").mkdir()
    shutil.copy(PROJECT / "pyproject.toml", project)
    environment = project / "conf" / NAME
    environment.mkdir()
    (environment / "globals.yml").write_text(f"dataset: {NAME}\n")
    raw = project / "data" / "01_raw" / NAME
    known = copy_images(base.resolve(), layout, raw)
    copy_images(added.resolve(), "mvtec", raw)
    return known


def copy_images(root: Path, layout: str, to: Path) -> list[str]:
    """Copy good and defective images in the layout `mvtec`; returns the categories."""
    source = get_layout(layout)
    categories = source.categories(root)
    for category in categories:
        for number, record in enumerate(source.records(root, category)):
            if record.label not in ("good", "defective"):
                continue
            kind, file = record.defect_type, Path(record.path)
            copies = {record.path: f"{record.split or 'train'}/{kind}/{number}{file.suffix}"}
            if record.mask_path:
                mask = Path(record.mask_path)
                copies[record.mask_path] = f"ground_truth/{kind}/{number}_mask{mask.suffix}"
            for old, new in copies.items():
                (to / category / new).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / old, to / category / new)
    return categories


def set_categories(project: Path, categories: Sequence[str] | None) -> None:
    """Write which of the raw data's categories are used; None: all."""
    data = {"data": {"layout": "mvtec", "categories": categories}}
    (project / "conf" / NAME / "parameters_data.yml").write_text(json.dumps(data))


def champion(project: Path, categories: Sequence[str], steps: int | None) -> dict[str, Any]:
    """Train on the first categories, and promote whatever comes of it."""
    set_categories(project, categories)
    length = {"training.steps": steps} if steps else {}
    figures = trained(project, {"training.seed": 0, **length})
    kedro(project, "registration", {"training.seed": 0, **length})
    kedro(project, "promotion", {"promotion.override_reason": "benchmark"})
    return figures


def trained(project: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of each category, on its test images, after a training."""
    kedro(project, "train", {**parameters, "training.resume": "if_same"})
    kedro(project, "evaluation", {**parameters, "evaluation.review_images": 0})
    metrics = json.loads((project / "data" / "08_reporting" / NAME / "metrics.json").read_text())
    return {
        category: {metric: figures[metric] for metric in METRICS}
        for category, figures in metrics["categories"].items()
    }


def kedro(project: Path, pipeline: str, parameters: Mapping[str, Any]) -> None:
    """`kedro run` of a pipeline; what it says is shown where it fails."""
    given = ",".join(f"{name}={value}" for name, value in parameters.items())
    command = [sys.executable, "-m", "kedro", "run", "--env", NAME, "--pipelines", pipeline]
    done = subprocess.run(
        [*command, "--params", given],
        cwd=project,
        env={**os.environ, "DO_NOT_TRACK": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"error: {pipeline} ended with {done.returncode}:\n{done.stdout[-3000:]}")


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Medians over the seeds, and the range."""
    head = f"{'model':<16}  {'category':<18}  {'metric':<12}"
    lines = [f"{head}  {'median':>6} {'least':>6} {'most':>6}  {'seeds':>6}"]
    for start, runs in results.items():
        for category in runs[0]:
            for metric in METRICS:
                values = [run[category][metric] for run in runs]
                if None in values:
                    continue
                lines.append(
                    f"{start:<16}  {category:<18}  {metric:<12}  {median(values):6.3f} "
                    f"{min(values):6.3f} {max(values):6.3f}  {len(values):6d}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
