"""What a run will need late is looked for before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.datasets.earlier_evaluation import EarlierEvaluationDataset
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.hooks import PreflightHooks

if TYPE_CHECKING:
    from pathlib import Path


def check(folder: Path, compare_with: str | None) -> None:
    references = EarlierEvaluationDataset(
        filepath=str(folder / "r.parquet"), metrics=str(folder / "m.json"), model_name="m"
    )
    config = EvaluationConfig(compare_with=compare_with)
    catalog = DataCatalog(
        {"params:evaluation": MemoryDataset(config), "earlier_evaluations": references}
    )
    inputs = ["params:evaluation", "earlier_evaluations"]
    pipeline = Pipeline([Node(lambda config, references: 0, inputs, "comparison", name="compare")])
    PreflightHooks().before_pipeline_run(pipeline, catalog)


def test_a_misspelt_revision_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'mian', and Git knows no such revision"):
        check(tmp_path, "mian")


@pytest.mark.parametrize("compare_with", [None, "champion"])
def test_a_champion_is_not_looked_for_before_the_run(
    tmp_path: Path, compare_with: str | None
) -> None:
    check(tmp_path, compare_with)
