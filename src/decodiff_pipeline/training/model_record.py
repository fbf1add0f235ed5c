"""Record of a model's inputs, so that an unchanged model is not built again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from decodiff_pipeline.data.provenance import code_sha256, data_digest
from decodiff_pipeline.data.regions import load_regions
from decodiff_pipeline.deco import weights
from decodiff_pipeline.deco.digests import folder_sha256, network_sha256, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.scoring import ScoringConfig

CODE = ("data", "deco", "training")  # packages whose code the model depends on
PROVENANCE = ("git_commit", "git_dirty", "parameter_overrides")


def inputs_sha256(
    network: DeCoDiffUNet,
    manifest: pd.DataFrame,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    scoring: ScoringConfig,
) -> str:
    """SHA-256 of the inputs and the code of `scoring_fit.build_model`.

    The number of threads and the kind of CPU are left out: they change only the rounding.
    """
    regions = load_regions(scoring.regions, manifest, geometry)
    facts = scoring.model_dump(exclude={"batch_size", "regions"})
    return sha256_of(
        [
            network_sha256(network),
            data_digest(manifest),
            weights.digest(autoencoder),
            to_jsonable_python([geometry, facts]),
            code_sha256(*CODE),
            *([to_jsonable_python(regions)] if regions else []),
        ]
    )


def is_made(folder: Path, record: Path, inputs: str) -> bool:
    """Whether a saved model was made from these inputs and its files are unchanged."""
    stored = read_record(record)
    if stored.get("inputs_sha256") != inputs or not folder.is_dir():
        return False
    return bool(stored.get("model_sha256") == folder_sha256(folder))


def make_record(
    folder: Path,
    record: Path,
    inputs: str,
    provenance: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a saved model; the stored one if the model is unchanged.

    Returns:
        ``model_sha256``, ``inputs_sha256``, `PROVENANCE` and ``parameters``, JSON-ready.
    """
    digests = {"model_sha256": folder_sha256(folder), "inputs_sha256": inputs}
    stored = read_record(record)
    if digests.items() <= stored.items():
        return stored
    made_by = {key: provenance.get(key) for key in PROVENANCE}
    return {**digests, **made_by, "parameters": to_jsonable_python(dict(parameters))}


def read_record(path: Path) -> dict[str, Any]:
    """A record as `make_record` returns it; empty if it is missing or cannot be read."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
