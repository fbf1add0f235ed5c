"""What Kedro-Viz shows of a dataset; it calls ``preview`` and reads its annotation."""

from __future__ import annotations

import base64
import inspect
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from kedro.io import AbstractDataset
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

DATASETS = "decodiff_pipeline.datasets"
CURVE = [{"category": "a", "fpr": x, "tpr": x / 2} for x in (0.0, 1.0)]
DECISIONS = [{"category": "a", "actual": "good", "predicted": "defective"}] * 3


def preview(kind: str, path: Path, **options: Any) -> Any:
    config = {"type": f"{DATASETS}.{kind}", "filepath": str(path), **options}
    found = AbstractDataset.from_config("one", config).preview()
    json.dumps(found, allow_nan=False)  # as the page gets it
    return found


def shown_as(kind: str) -> str:
    """The name of the annotation, from which the page takes how to show it."""
    module, _, name = f"{DATASETS}.{kind}".rpartition(".")
    one = getattr(__import__(module, fromlist=[name]), name)
    return str(inspect.signature(one.preview).return_annotation)


def test_a_table_is_shown_by_its_first_rows_and_lists_by_their_length(tmp_path: Path) -> None:
    table = pd.DataFrame({"score": [0.5] * 30, "bins": [[1, 2, 3]] * 30})
    table.to_parquet(tmp_path / "table.parquet")
    found = preview("whole_files.ParquetDataset", tmp_path / "table.parquet")
    assert found["columns"] == ["score", "bins"]
    assert found["data"] == [[0.5, "3 values"]] * 20
    assert shown_as("whole_files.ParquetDataset") == "TablePreview"


@pytest.mark.parametrize(
    ("rows", "x", "y", "traces"),
    [
        (CURVE, "fpr", "tpr", [("a", [0.0, 1.0], [0.0, 0.5])]),
        ([{"step": 1, "loss": 0.5}], "step", "loss", [("", [1], [0.5])]),
        (DECISIONS, "actual", "predicted", [("defective", ["good"] * 3, None)]),
        ([{"category": None, "fpr": None, "tpr": None}], "fpr", "tpr", []),
    ],
)
def test_rows_are_drawn_as_dvc_draws_them(
    tmp_path: Path, rows: list[Any], x: str, y: str, traces: list[Any]
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    hint = {"dvc": {"plots": {"x": x, "y": y, "title": "Title"}}}
    found = preview("plots.PlotRowsDataset", tmp_path / "rows.json", metadata=hint)
    assert [(t["name"], t["x"], t.get("y")) for t in found["data"]] == traces
    assert found["layout"]["title"]["text"] == "Title"
    assert shown_as("plots.PlotRowsDataset") == "PlotlyPreview"


def test_pages_and_other_text_are_shown(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<h1>é</h1>")
    (tmp_path / "page.md").write_text("a < b")
    assert preview("whole_files.TextDataset", tmp_path / "page.html") == "<h1>é</h1>"
    assert preview("whole_files.TextDataset", tmp_path / "page.md") == "<pre>a &lt; b</pre>"
    assert shown_as("whole_files.TextDataset") == "HTMLPreview"


def test_a_folder_is_shown_by_its_index_or_its_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "index.parquet").write_bytes(b"none")
    found = preview("HandleDataset", tmp_path, handle="pathlib.Path")
    assert found["data"] == [("index.parquet", 4), ("inner", None)]
    pd.DataFrame({"score": [0.5]}).to_parquet(tmp_path / "index.parquet")
    handle = "decodiff_pipeline.evaluation.predictions.PredictionStore"
    assert preview("HandleDataset", tmp_path, handle=handle)["data"] == [[0.5]]
    assert shown_as("HandleDataset") == "TablePreview"


def test_pictures_models_and_logs_are_shown(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "b.png")
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    options = {"dataset": "matplotlib.MatplotlibDataset", "filename_suffix": ".png"}
    config = {"type": f"{DATASETS}.plots.FiguresDataset", "path": str(tmp_path), **options}
    picture = AbstractDataset.from_config("figures", config).preview()
    assert base64.b64decode(picture) == (tmp_path / "a.png").read_bytes()
    (tmp_path / "config.json").write_text('{"a": 1}')
    model = preview("DiffusersDataset", tmp_path, model="diffusers.AutoencoderTiny")
    assert json.loads(model) == {"a": 1}
    (tmp_path / "log.jsonl").write_text("1\n2\n")
    log = preview("appended_lines.AppendedLinesDataset", tmp_path / "log.jsonl")
    assert json.loads(log) == [2, 1]
    assert shown_as("plots.FiguresDataset") == "ImagePreview"
    assert shown_as("DiffusersDataset") == "JSONPreview"
