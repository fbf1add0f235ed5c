"""What a model was made from, kept beside it: a model that is there already is not made again."""

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

CODE = ("data", "deco", "training")  # packages that decide on what is fitted
MADE_BY = ("git_commit", "git_dirty", "parameter_overrides")


def inputs_sha256(
    network: DeCoDiffUNet,
    manifest: pd.DataFrame,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    scoring: ScoringConfig,
) -> str:
    """SHA-256 of everything that `scoring.build_model` makes a model from, and of its code.

    The number of threads and the kind of processor are left out: they change the last bits of what
    is fitted, and a model must not become another one by that.
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
    """Whether a saved model was made from these inputs and its files are as they were then."""
    known = read_record(record)
    if known.get("inputs_sha256") != inputs or not folder.is_dir():
        return False
    return bool(known.get("model_sha256") == folder_sha256(folder))


def make_record(
    folder: Path,
    record: Path,
    inputs: str,
    provenance: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """What a saved model was made by; where it was kept, what it was made by then.

    Returns:
        ``model_sha256``, ``inputs_sha256``, `MADE_BY` and ``parameters``, JSON-ready.
    """
    made = {"model_sha256": folder_sha256(folder), "inputs_sha256": inputs}
    known = read_record(record)
    if made.items() <= known.items():
        return known
    by = {key: provenance.get(key) for key in MADE_BY}
    return {**made, **by, "parameters": to_jsonable_python(dict(parameters))}


def read_record(path: Path) -> dict[str, Any]:
    """A record as `make_record` returns it; empty where there is none that can be read."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
