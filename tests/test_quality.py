"""The comparison at equal time, on a small data set and with trainings of seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from benchmarks.quality import ReleasedNetwork, figures, table, with_released_weights

from decodiff_pipeline.deco.unet import DeCoDiffUNet

if TYPE_CHECKING:
    from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
PARAMETERS = {
    "data": {"layout": "mvtec"},
    "preprocessing": {"resize": 64, "image_size": 64},
    "latent_cache": {"views": 1, "batch_size": 8},
    "scoring": {"num_inference_steps": 2, "fit": "limits"},
    "evaluation": {"resamples": 100},
}


@pytest.fixture
def project(tmp_path: Path, make: SimpleNamespace) -> Path:
    """The base configuration with an environment ``bolts`` of one small category."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "conf" / "base", folder / "conf" / "base")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()
    environment = folder / "conf" / "bolts"
    environment.mkdir()
    (environment / "globals.yml").write_text("dataset: bolts\n")
    training = yaml.safe_load((ROOT / "conf/base/parameters_training.yml").read_text())["training"]
    content = {**PARAMETERS, "training": {**training, "batch_size": 4, "progress_bar": False}}
    (environment / "parameters.yml").write_text(yaml.safe_dump(content))
    make.category(folder / "data" / "01_raw" / "bolts")
    return folder


def run(project: Path, out: Path) -> tuple[str, str]:
    options = ["--env", "bolts", "--minutes", "0.02", "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks.quality", "--project", str(project), *options]
    done = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600,
        env={**os.environ, "DO_NOT_TRACK": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_all_arms_are_trained_once_and_compared(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown, _ = run(project, out)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["arm"] for line in lines] == ["ours", "released"]
    assert set(lines[0]["figures"]) == {"ours", "pca", "autoencoder"}
    assert "| bolt | image AUROC |" in shown
    # As if it had been stopped before the second was judged.
    (out / "results.jsonl").write_text(json.dumps(lines[0]) + "\n")
    again, said = run(project, out)
    assert "released, seed 0:" in said
    assert "ours, seed 0:" not in said
    assert again.splitlines()[-12:] == shown.splitlines()[-12:]


@torch.no_grad()
def test_the_released_network_is_judged_as_the_same_function() -> None:
    size = {"base_channels": 32, "num_heads": 2, "context_dim": 32}
    released = ReleasedNetwork(2, *size.values()).eval()
    ours = with_released_weights(DeCoDiffUNet(categories=["a", "b"], **size), released)
    given = torch.randn(3, 4, 8, 8), torch.tensor([0, 4, 9]), torch.tensor([0, 1, 1])
    torch.testing.assert_close(ours(*given), released(*given), rtol=0, atol=1e-5)


def test_the_table_has_means_over_seeds_and_gaps_without_masks() -> None:
    def row(arm: str, auroc: float) -> dict[str, object]:
        metrics = {"image_auroc": auroc, "pixel_ap": None, "pixel_aupro": None}
        metrics["intervals"] = {"image_auroc": [auroc - 0.1, auroc + 0.1]}
        found = {arm: figures({"bolt": metrics})}
        return {"arm": arm, "seed": 0, "minutes": 1, "steps": 2, "parameters": 3, "figures": found}

    lines = list(table([row("ours", 0.7), row("ours", 0.8), row("released", 0.6)]))
    ours, other = "0.750 (0.650 to 0.850) ± 0.071", "0.600 (0.500 to 0.700)"
    assert lines[2] == f"| bolt | image AUROC | {ours} | {other} |"
    assert lines[3] == "| bolt | pixel AP |  |  |"
