"""The wiring of promotion and rollback: catalog, parameters, and the log that only grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.io import DatasetError

from decodiff_pipeline.datasets.appended_lines import AppendedLinesDataset
from decodiff_pipeline.pipelines import promotion, rollback
from decodiff_pipeline.registry.config import PromotionConfig, RollbackConfig

CONF = Path(__file__).parents[2] / "conf" / "base"
IN_MEMORY = {"promotion_judgement"}


@pytest.mark.parametrize("module", [promotion, rollback])
def test_inputs_and_outputs_are_in_the_catalog(module) -> None:
    catalog = yaml.safe_load((CONF / "catalog.yml").read_text(encoding="utf-8"))
    pipeline = module.create_pipeline()
    data = {name for name in pipeline.datasets() if not name.startswith("params:")}
    assert data - IN_MEMORY <= set(catalog)
    assert "promotion_log" in pipeline.all_outputs()


def test_inside_a_run_the_promotion_waits_for_the_registration() -> None:
    assert "registration" in promotion.create_pipeline().inputs()


def test_the_shipped_parameters_are_the_documented_defaults() -> None:
    shipped = yaml.safe_load((CONF / "parameters_promotion.yml").read_text(encoding="utf-8"))
    assert PromotionConfig.model_validate(shipped["promotion"]) == PromotionConfig()
    assert RollbackConfig.model_validate(shipped["rollback"]) == RollbackConfig()


def test_processes_that_log_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    script = """
import sys
from decodiff_pipeline.datasets.appended_lines import AppendedLinesDataset
log = AppendedLinesDataset(filepath=sys.argv[1])
for i in range(50):
    log.save({"by": sys.argv[2], "i": i, "long": "x" * 20000})
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("a", "b")
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    lines = AppendedLinesDataset(filepath=str(path)).load()
    assert len(lines) == 100
    for name in ("a", "b"):
        assert [line["i"] for line in lines if line["by"] == name] == list(range(50))


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"i": 1}\n{"i": ')
    log = AppendedLinesDataset(filepath=str(path))
    log.save({"i": 3})
    assert json.loads(path.read_text().splitlines()[-1]) == {"i": 3}
    with pytest.raises(DatasetError, match="not JSON"):
        log.load()
