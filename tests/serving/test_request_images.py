from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.fuzz_server import fuzz, save_tiny_model, served

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.registry.logged_model import _signature
from decodiff_pipeline.serving.request_images import image_bytes

FILE = np.random.default_rng(0).integers(0, 256, 300, dtype=np.uint8).tobytes()
TEXT = base64.b64encode(FILE).decode()


def test_bytes_and_base64_with_or_without_line_breaks_are_the_file() -> None:
    broken = base64.encodebytes(FILE).decode()
    assert "\n" in broken
    texts = [FILE, bytearray(FILE), TEXT, broken, broken.replace("\n", "\r\n"), f"  {TEXT}\n"]
    assert image_bytes(texts) == [FILE] * len(texts)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (TEXT[:8] + "*" + TEXT[8:], r"image 1 is not base64: character 8 is '\*'"),
        (TEXT[:8] + " " + TEXT[9:], "character 8 is ' '"),
        (TEXT[:8] + "é" + TEXT[8:], "character 8 is 'é'"),
        (TEXT[:8] + "_" + TEXT[9:], "replace - by [+] and _ by /"),
        (f"data:image/png;base64,{TEXT}", "image 1 is a data URL: send only the base64 text after"),
        (TEXT[:-1], "image 1 is not base64 .*send all of it"),
        (TEXT[:8] + "==" + TEXT[8:], "image 1 is not base64"),
        (None, "image 1 is of type NoneType"),
        (12, "image 1 is of type int"),
    ],
)
def test_anything_else_is_refused_with_the_number_of_the_image(sent: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        image_bytes([TEXT, sent])


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["image", "category"], "data": [[TEXT, "mono"]]}},
        {"instances": [{"image": TEXT, "category": "mono"}]},
        {"inputs": {"image": [TEXT], "category": ["mono"]}},
        {"inputs": [{"image": TEXT, "category": "mono"}]},
    ],
)
def test_every_form_of_a_request_holds_the_same_base64(body: dict[str, Any]) -> None:
    from mlflow.models.utils import _enforce_schema
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    schema = _signature().inputs
    table = _enforce_schema(infer_and_parse_data(body, schema), schema)
    assert image_bytes(table["image"]) == [FILE]


def test_the_documented_curl_sends_a_large_image(tmp_path: Path) -> None:
    """Linux refuses an argument of 128 KiB."""
    image = FILE * 1000
    page = Path(__file__).parents[2] / "docs" / "serving.md"
    (command,) = re.findall(r"```bash\n([^`]*/invocations[^`]*)```", page.read_text("utf-8"))
    command = re.sub(r"curl -s \S+", "cat; :", command)
    (named,) = re.findall(r"\S+\.png", command)
    (tmp_path / named.removeprefix("image=")).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / named.removeprefix("image=")).write_bytes(image)
    sent = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    (row,) = json.loads(sent.stdout)["dataframe_records"]
    assert row["category"] == "mono"
    assert image_bytes([row["image"]]) == [image]


@pytest.mark.slow
def test_damaged_requests_are_answered_with_a_sentence(tmp_path: Path) -> None:
    with served(save_tiny_model(tmp_path)) as port:
        verdicts, _ = fuzz(port, 60, 1)
    assert set(verdicts) <= {"200", "400", "415", "422"}
    assert verdicts["200"] > 5
    assert verdicts["400"] > 5
