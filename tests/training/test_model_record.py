"""A model that was made from the same is kept, and its record with it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.datasets.folders import DiffusersDataset
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.deco.loading import load_pipeline
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.model_record import inputs_sha256, is_made, make_record
from decodiff_pipeline.training.scoring import ScoringConfig

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

FIRST = {"git_commit": "a", "git_dirty": False, "parameter_overrides": "training.steps"}
LATER = {"git_commit": "b", "git_dirty": True, "parameter_overrides": None, "mlflow_run_id": "7"}


def test_a_model_of_the_same_inputs_is_kept(
    tiny_model: Path, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    folder, path = tmp_path / "pipeline", tmp_path / "model_record.json"
    shutil.copytree(tiny_model, folder)
    network = load_pipeline(folder).unet

    def inputs(table: pd.DataFrame = manifest, **scoring: Any) -> str:
        geometry = PreprocessConfig(resize=32, image_size=32)
        config = ScoringConfig(**scoring)
        return inputs_sha256(network, table, geometry, AutoencoderConfig(), config)

    assert not is_made(folder, path, inputs())  # nobody knows what it was made from
    made = make_record(folder, path, inputs(), FIRST, {"scoring": ScoringConfig()})
    path.write_text(json.dumps(made))
    assert made["parameter_overrides"] == "training.steps"
    assert made["parameters"]["scoring"]["fit"] == "all"

    assert is_made(folder, path, inputs(batch_size=4))
    kept = DiffusersDataset(model="diffusers.UNet2DModel", filepath=str(folder))
    kept.save(folder)
    assert folder_sha256(folder) == made["model_sha256"]
    assert make_record(folder, path, inputs(), LATER, {}) == made

    relabelled = manifest.assign(label="defective")
    for other in (inputs(fit="none"), inputs(relabelled)):
        assert not is_made(folder, path, other)
        assert make_record(folder, path, other, LATER, {})["git_commit"] == "b"
    with ChangedWeight(network):
        assert not is_made(folder, path, inputs())
    index = folder / "model_index.json"
    index.write_text(index.read_text() + " ")
    assert not is_made(folder, path, inputs())


class ChangedWeight:
    """Within the block a weight of the network is another one."""

    def __init__(self, network: Any) -> None:
        self.weight = next(network.parameters()).data

    def __enter__(self) -> None:
        self.weight += 1

    def __exit__(self, *_: object) -> None:
        self.weight -= 1
