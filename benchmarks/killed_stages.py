"""Stages of the loop that `benchmarks.kill_stages` kills, and what each of them makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from benchmarks.tiny_project import DATASET, REPORTS
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.digests import sha256_of

if TYPE_CHECKING:
    from benchmarks.tiny_project import Project


class Stage(NamedTuple):
    """What is killed.

    Attributes:
        name: Of the pipeline, or ``retraining``.
        removed: What it has made before and shall make anew, below ``data``.
        written: What else it writes there; all other files must stay as they are.
        moves: Whether it writes to the registry.
    """

    name: str
    removed: tuple[str, ...]
    written: tuple[str, ...]
    moves: bool = False


LOG = f"{REPORTS}/promotion_log"
STAGES = (
    Stage("data_validation", (), ("02_intermediate", "03_primary", f"{REPORTS}/validation")),
    Stage("latent_caching", ("04_feature",), ()),
    Stage(
        "evaluation",
        ("07_model_output",),
        (REPORTS, f"06_models/{DATASET}/thresholds", f"06_models/{DATASET}/monitoring"),
    ),
    Stage("registration", (), (f"{REPORTS}/registration",), moves=True),
    Stage("promotion", (), (f"{REPORTS}/promotion", f"07_model_output/{DATASET}"), moves=True),
    Stage("rollback", (), (f"{REPORTS}/rollback", LOG), moves=True),
)
RETRAINING = Stage("retraining", (), ("0",), moves=True)


def made(project: Project, stage: str) -> str:
    """Digest of what a stage makes, whatever lies around it."""
    if stage == "latent_caching":
        cache = LatentCache(project.data / "04_feature" / DATASET / "latents")
        keys = sorted(set(cache.index()["key"]))
        reader = cache.reader(keys)  # one by one: masks have another shape
        parts = [part for row in range(len(keys)) for part in reader.moments([row])]
        return sha256_of([keys, *(part.numpy().tobytes().hex() for part in parts)])
    if stage == "data_validation":
        table = pd.read_parquet(project.data / "03_primary" / DATASET / "manifest.parquet")
        return sha256_of(table.astype(str).to_dict("records"))
    if stage == "evaluation":
        metrics = json.loads((project.data / REPORTS / "metrics.json").read_text())
        return sha256_of([metrics["categories"], metrics["mean"]])
    return ""
