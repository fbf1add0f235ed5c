"""The number in an answer is the registry's, or there is none."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.serving.served_version import served_version
from decodiff_pipeline.serving.server import chosen_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_number_of_a_version_by_alias_in_a_copy_and_after_a_change(
    register: Callable[..., dict[str, Any]],
    tiny_model: Path,
    png: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    for threshold in (0.05, 0.06):  # two versions
        register("bolts", thresholds={"categories": {"mono": {"threshold": threshold}}})
    rows = {"image": [png], "category": ["mono"]}
    for uri, number in {
        "models:/bolts@challenger": "bolts/2",
        "models:/bolts/1": "bolts/1",
    }.items():
        answer = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame(rows))
        assert answer["model_version"].tolist() == [number]
        assert answer["model_sha256"].tolist() == [folder_sha256(tiny_model)]

    assert chosen_version("models:/bolts@challenger") == "models:/bolts@challenger"
    assert chosen_version("models:/bolts") == "models:/bolts/2"
    mlflow.MlflowClient().set_registered_model_alias("bolts", "champion", "1")
    assert chosen_version("models:/bolts") == "models:/bolts/1"
    assert "serving bolts version 1, the champion" in capsys.readouterr().err

    fetched = tmp_path / "fetched"
    mlflow.artifacts.download_artifacts("models:/bolts@challenger", dst_path=str(fetched))
    copy = tmp_path / "copy"
    shutil.copytree(fetched, copy)
    pipeline = copy / "artifacts" / "pipeline"
    assert served_version(pipeline).number == "bolts/2"
    thresholds_file = copy / "artifacts" / "thresholds.json"
    original = thresholds_file.read_text()
    thresholds_file.write_text('{"categories": {}}')  # no version has these thresholds
    assert served_version(pipeline).number is None
    thresholds_file.write_text(original)
    (pipeline / "model_index.json").write_text("{}")
    assert served_version(pipeline).number is None
    (copy / "registered_model_meta").write_text("- nonsense: [")
    assert served_version(pipeline).number is None
