"""The registered version behind ``mlflow models serve``, asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.pipelines.registration.nodes import register_model
from decodiff_pipeline.registry.config import RegistrationConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

THRESHOLDS = {"categories": {"mono": {"threshold": 0.05}}}


@pytest.fixture
def server(
    tiny_model: Path, raw: Path, manifest: pd.DataFrame, store: str, tmp_path: Path
) -> Iterator[str]:
    """Address of a server that runs the command the registration returns."""
    result = register_model(
        tiny_model,
        THRESHOLDS,
        {"categories": {}},
        {},
        manifest,
        ImageFolder(raw),
        manifest,
        RegistrationConfig(max_images=2),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    tools = Path(sys.executable).parent
    command = [*result["serve"].split()[:-1], str(port)]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DECODIFF_THRESHOLDS": str(tmp_path / "overrides.json"),
    }
    (tmp_path / "overrides.json").write_text('{"poly": 0.9}')
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(tools / command[0]), *command[1:]],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/ping", process, tmp_path / "server.log")
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 - loopback
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(log.read_text())


def post(address: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{address}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def rows(*images: tuple[bytes, str]) -> list[dict[str, str]]:
    return [
        {"image": base64.b64encode(image).decode(), "category": category}
        for image, category in images
    ]


@pytest.mark.slow
def test_a_posted_png_is_answered_and_a_bad_one_is_a_400(server: str, png: bytes) -> None:
    status, body = post(server, {"dataframe_records": rows((png, "mono"), (png, "poly"))})
    assert status == 200, body
    mono, poly = body["predictions"]
    assert set(mono) == {
        "category", "score", "threshold", "threshold_from", "decision", "map",
    }  # fmt: skip
    assert 0 <= mono["score"] <= 1
    assert mono["decision"] == ("defective" if mono["score"] >= 0.05 else "good")
    assert (mono["threshold"], mono["threshold_from"]) == (0.05, "fitted")
    assert (poly["threshold"], poly["threshold_from"]) == (0.9, "override")
    grey = Image.open(io.BytesIO(base64.b64decode(mono["map"])))
    assert (grey.format, grey.mode, grey.size) == ("PNG", "L", (60, 50))

    body = {"dataframe_records": rows((png, "mono")), "params": {"map_bits": 0}}
    status, answer = post(server, body)
    assert status == 200, answer
    assert answer["predictions"][0]["map"] is None
    assert answer["predictions"][0]["score"] == pytest.approx(mono["score"], abs=1e-6)

    for threshold, decision in ((0, "defective"), (0.99, "good")):
        body = {"dataframe_records": rows((png, "poly")), "params": {"threshold": threshold}}
        status, answer = post(server, body)
        assert status == 200, answer
        (poly,) = answer["predictions"]
        assert (poly["threshold"], poly["threshold_from"]) == (threshold, "request")
        assert poly["decision"] == decision
    status, answer = post(server, body | {"params": {"threshold": 2.5}})
    assert (status, answer["error_code"]) == (400, "BAD_REQUEST")
    assert "threshold is 2.5" in answer["message"]

    bad = {
        "unknown category 'wood'": rows((png, "wood")),
        "image 0 is damaged": rows((png[:-30], "mono")),
        "image 1 is no readable": rows((png, "mono"), (b"text", "mono")),
        "holds 3 images; send 1 to 2": rows(*[(png, "mono")] * 3),
    }
    for sentence, records in bad.items():
        status, body = post(server, {"dataframe_records": records})
        assert (status, body["error_code"]) == (400, "BAD_REQUEST")
        assert sentence in body["message"]

    status, _ = post(server, {"dataframe_records": rows((png, "mono"))})  # it is still up
    assert status == 200
