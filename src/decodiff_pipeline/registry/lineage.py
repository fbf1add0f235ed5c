"""The data of a run as MLflow's data set input."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.provenance import data_digest

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

DIGEST_LENGTH = 36  # MLflow's limit; the tag data_digest has all 64 characters


def describe(
    manifest: pd.DataFrame, *, name: str, path: Path, project: Path, context: str
) -> tuple[str, dict[str, Any]]:
    """A manifest by its digest, its place in the project and the number of its images.

    Args:
        manifest: A row for each image.
        name: Of the data set.
        path: Where the manifest is; outside the project only the file's name is told.
        project: The project's root.
        context: ``training`` or ``evaluation``.

    Returns:
        Its full digest, and the data of a record of kind ``input``.
    """
    digest = data_digest(manifest)
    place = path.relative_to(project).as_posix() if path.is_relative_to(project) else path.name
    images: dict[str, Any] = {}
    groups = manifest[["category", "split", "label"]].astype(str)
    for (category, split, label), count in Counter(groups.itertuples(index=False)).items():
        images.setdefault(category, {}).setdefault(split, {})[label] = count
    columns = [{"name": str(c), "type": "string", "required": False} for c in manifest.columns]
    dataset = {
        "name": name,
        "digest": digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": place}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": len(manifest), "images": images}),
    }
    return digest, {"dataset": dataset, "context": context}
