"""A table says the same in whatever form a program saves it."""

from __future__ import annotations

import codecs
import logging
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from decodiff_pipeline.data.add_reviewed import add, plan
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.reviewed_labels import read_labels
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.monitoring.source import RecentSource

if TYPE_CHECKING:
    from pathlib import Path

# Changes to the bytes of "path,category\r\nimages/ä b.png,01\r\n", each as one program makes it.
HEADER, NAME = "path,category", "images/ä b.png"
PLAIN = f"{HEADER}\r\n{NAME},01\r\n"
FORMS = {
    "plain": PLAIN.encode(),
    "a byte order mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "utf-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "big-endian": codecs.BOM_UTF16_BE + PLAIN.replace(",", ";").encode("utf-16-be"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "windows-1252": PLAIN.encode("cp1252"),
    "backslashes": PLAIN.replace("/", "\\").encode(),
    "a dot before backslashes": PLAIN.replace("images/", ".\\images\\").encode(),
    "quotes": f'"path","category"\r\n"{NAME}","01"\r\n'.encode(),
    "a line for Excel": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
    "old line ends": PLAIN.replace("\r\n", "\r").encode(),
    "blank lines": PLAIN.replace("\r\n", "\r\n\r\n").encode() + b",\r\n\r\n",
    "spaces and capitals": PLAIN.replace(HEADER, " Path , Category ").encode(),
    "columns without names": PLAIN.replace("\r\n", ",,\r\n").encode(),
    "decomposed letters": unicodedata.normalize("NFD", PLAIN).encode(),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(tmp_path / NAME)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_takes_every_form(folder: Path, form: str) -> None:
    table = folder / "list.csv"
    table.write_bytes(FORMS[form])
    (item,) = InferenceSource(table).items(None)
    assert (item.path, item.category) == (NAME, "01")
    (row,) = RecentSource(table).rows(None).to_dict("records")
    assert (row["path"], row["category"]) == (NAME, "01")

    encoding = {"utf-16": "utf-16", "windows-1252": "cp1252"}.get(form, "utf-8")
    if form in {"utf-16", "windows-1252", "semicolons", "backslashes", "spaces and capitals"}:
        text = FORMS[form].decode(encoding)
        between = next(one for one in "\t;," if one in text)
        lines = text.splitlines()
        lines = [f"{lines[0]}{between} Verdict", f"{lines[1]}{between}good"]
        table.write_bytes("\r\n".join(lines).encode(encoding))
        (reviewed,), problems = read_labels(table, folder)
        assert (reviewed.image, reviewed.category) == (folder / NAME, "01")
        assert problems == []


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    file = tmp_path / "list.parquet"
    pd.DataFrame({"Path": [" a.png "], "category": [None]}).to_parquet(file)
    assert read_table(file, ()).rows == ((1, {"path": "a.png", "category": ""}),)
    pd.DataFrame({"Path": ["a.png"], "path": ["b.png"]}).to_parquet(file)
    with pytest.raises(DataError, match="two columns 'path'"):
        read_table(file, ())
    pd.DataFrame({"category": ["01"], "score": [0.1]}).to_parquet(file)
    assert RecentSource(file).rows(None)["score"].tolist() == [0.1]


@pytest.mark.parametrize(
    ("content", "scores"),
    [
        ("category;score\nm;0,25\nm;1\nm;\n", [0.25, 1, None]),
        ("category\tscore\nm\t0,25\n", [0.25]),
        ("category,score\nm,2.5e-1\n", [0.25]),
        ('category,score\nm,"0,25"\n', "line 2: score '0,25' is not a number: write it as 0.25"),
        ("category;score\nm;1.000,25\n", "line 2: score '1.000,25' is not a number"),
        ("category;score\n\nm;n/a\n", "line 3: score 'n/a' is not a number"),
    ],
)
def test_numbers(tmp_path: Path, content: str, scores: list[float | None] | str) -> None:
    (tmp_path / "list.csv").write_text(content)
    if isinstance(scores, str):
        with pytest.raises(DataError, match=scores):
            RecentSource(tmp_path / "list.csv").rows(None)
    else:
        table = read_table(tmp_path / "list.csv", ("category", "score"))
        found = [table.number(row["score"], line, "score") for line, row in table.rows]
        assert found == scores


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: write a line with the names"),
        (b"PK\x03\x04rest", "Excel workbook: save it as 'CSV UTF-8'"),
        (b"path,category\na.png,b\x81\n", "line 2: byte 0x81 is not .*: save it as 'CSV UTF-8'"),
        (b"path,category\nin,side.png,mono\n", "line 2: 'mono' is beyond the last of 2 columns"),
        (b'path,category\n"a.png,mono\nb.png,mono\n', "line 3: .*: close the quotes"),
        (b"path,Path\na.png,b.png\n", "two columns 'path': keep one"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"list.csv.*{message}"):
        read_table(tmp_path / "list.csv", ("path", "category"))


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "a\\b.png").touch()
    assert table_path("a\\b.png", tmp_path) == "a\\b.png"  # of that very name
    assert table_path("c\\d.png", tmp_path) == "c/d.png"
    for path in ("C:\\data\\a.png", "d:/a.png", "\\\\server\\a.png"):
        with pytest.raises(DataError, match="path of Windows: use paths relative to"):
            table_path(path, tmp_path)


def elpv(root: Path, table: bytes) -> None:
    for i in range(6):
        path = root / "images" / f"ä {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), i, np.uint8)).save(path)
    (root / "labels.csv").write_bytes(table)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(("between", "comma"), [(";", ","), ("\t", "."), (",", ".")])
def test_elpv_s_table_from_excel_is_read_and_added_to(
    tmp_path: Path, encoding: str, between: str, comma: str
) -> None:
    lines = [between.join((f"images\\ä {i}.png", f"{i % 2}{comma}0", "mono")) for i in range(6)]
    elpv(tmp_path / "raw", "\r\n".join(lines).encode(encoding))
    layout = get_layout("elpv")
    before = list(layout.records(tmp_path / "raw", "mono"))
    assert [one.path for one in before] == [f"images/ä {i}.png" for i in range(6)]
    assert [one.label for one in before] == ["good", "defective"] * 3

    Image.fromarray(np.full((32, 32), 99, np.uint8)).save(tmp_path / "new.png")
    (tmp_path / "new.csv").write_text("path;category;verdict\nnew.png;mono;good\n")
    add(plan(tmp_path / "new.csv", tmp_path, tmp_path / "raw", layout), tmp_path / "raw")
    after = list(layout.records(tmp_path / "raw", "mono"))
    assert after[:6] == before
    assert (len(after), after[6].label) == (7, "good")


def test_visa_s_table_from_excel(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "candle" / "Data" / "Images"
    folder.mkdir(parents=True)
    (folder / "ü.png").touch()
    (tmp_path / "split_csv").mkdir()
    text = "Object;split;label;image;mask\r\ncandle;train;normal;candle\\Data\\Images\\ü.png;\r\n"
    (tmp_path / "split_csv" / "1cls.csv").write_bytes(text.encode("cp1252"))
    with caplog.at_level(logging.WARNING):
        (record,) = get_layout("visa").records(tmp_path, "candle")
    assert record.path == "candle/Data/Images/ü.png"
    assert "read as Windows-1252" in caplog.text
