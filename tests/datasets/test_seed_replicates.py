"""Runs that differ by their seeds alone are found in MLflow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kedro.io import DataCatalog

from decodiff_pipeline.datasets import seed_replicates
from decodiff_pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

SAME = {
    "training": {"preset": "nano", "steps": 10, "seed": 0, "log_every": 20},
    "evaluation": {"protocol": "strict", "gallery_size": 3},
}


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {**SAME.get(key, {}), **changes.get(key, {})} for key in SAME.keys() | changes.keys()
    }


class Runs:
    """Makes runs as the tracking hook does."""

    def __init__(self, store: str, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def add(
        self, changes: dict[str, Any] | None = None, auroc: float = 0.5, **how: Any
    ) -> str | None:
        tags = {"data_digest": how["digest"]} if "digest" in how else {}
        tracker = Tracker(
            self.store,
            how.get("experiment", "elpv"),
            run_name="r",
            tags=tags,
            unsent=self.folder / "unsent",
        ).start()
        tracker.log_params(merged(changes or {}))
        if how.get("metrics", True):
            path = self.folder / "metrics.json"
            path.write_text(json.dumps({"categories": {"plate": {"image_auroc": auroc}}}))
            tracker.log_artifact(path, "metrics")
        if how.get("status"):
            tracker.finish(how["status"])
        return tracker.run_id


@pytest.fixture
def runs(store: str, tmp_path: Path) -> Runs:
    return Runs(store, tmp_path)


def load() -> dict[int, Any]:
    entry = {
        "type": "decodiff_pipeline.datasets.seed_replicates.SeedReplicatesDataset",
        "filename": "metrics.json",
    }
    return DataCatalog.from_config({"replicates": entry}).load("replicates")


def aurocs() -> dict[int, float]:
    found = load()
    return {seed: found[seed]["categories"]["plate"]["image_auroc"] for seed in found}


def test_finished_runs_with_other_seeds_are_seed_replicates(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"status": "FINISHED"}
    runs.add({"training": {"seed": 1}}, 0.1, **done)  # superseded by the next
    runs.add({"training": {"seed": 1, "log_every": 5}}, 0.2, digest="d", **done)
    runs.add({"training": {"seed": 2}, "evaluation": {"gallery_size": 9}}, 0.3, **done)
    runs.add({"training": {"seed": 3}, "latent_cache": {"views": 4}}, 0.4, **done)
    own = runs.add(digest="d")  # still running
    monkeypatch.setattr(seed_replicates, "active_run_id", lambda: own)
    assert aurocs() == {1: 0.2, 2: 0.3, 3: 0.4}


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"training": {"steps": 11}}, {}),
        ({"training": {"dropout": 0.1}}, {}),
        ({"evaluation": {"protocol": "released"}}, {}),
        ({"latent_cache": {"views": 5}}, {}),
        ({}, {"digest": "other"}),
        ({}, {"experiment": "mvtec"}),
        ({}, {"metrics": False}),
        ({}, {"status": "FAILED"}),
        ({}, {"status": None}),
    ],
)
def test_runs_of_something_else_are_not(
    runs: Runs, changes: dict[str, Any], how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes["training"] = {**changes.get("training", {}), "seed": 1}
    runs.add(changes, **{"status": "FINISHED", **how})
    own = runs.add({"latent_cache": {"views": 4}}, digest="d")
    monkeypatch.setattr(seed_replicates, "active_run_id", lambda: own)
    assert load() == {}


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_without_a_tracked_run_or_an_answer_there_are_none(
    store: str, unreachable: str, monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    import mlflow

    monkeypatch.setattr(seed_replicates, "active_run_id", lambda: run_id)
    mlflow.set_tracking_uri(unreachable)
    assert load() == {}
