"""The registered version behind ``mlflow models serve``, asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.served_folder import save_model
from PIL import Image
from tests.servers import free_port, wait_for

from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.monitoring.source import RecentSource
from decodiff_pipeline.registry.config import RegistrationConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THRESHOLDS = {"categories": {"mono": {"threshold": 0.05}}}


@contextmanager
def serving(command: list[str], folder: Path, **variables: str) -> Iterator[str]:
    """Address of a server that a command and a port start, ended as a container's is."""
    port = free_port()
    tools = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(tools / command[0]), *command[1:], str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/ping", process, folder / "server.log")
            yield address
            if "serving.server" in " ".join(command):
                process.terminate()  # it alone: a container's main process ends the others
                assert process.wait(30) in {0, -signal.SIGTERM}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


@pytest.fixture
def server(register: Callable[..., dict[str, Any]], store: str, tmp_path: Path) -> Iterator[str]:
    """Address of a server that runs the command the registration returns."""
    result = register(registration=RegistrationConfig(max_images=2))
    (tmp_path / "overrides.json").write_text('{"poly": 0.9}')
    with serving(
        result["serve"].split()[:-1],
        tmp_path,
        MLFLOW_TRACKING_URI=store,
        DECODIFF_THRESHOLDS=str(tmp_path / "overrides.json"),
    ) as address:
        yield address


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
        "pixel_threshold", "detections", "category_certainty",
        "model_version", "model_sha256", "request_id",
    }  # fmt: skip
    assert mono["model_version"] == "decodiff/1"
    assert mono["request_id"] == poly["request_id"]
    assert 0 <= mono["score"] <= 1
    assert mono["decision"] == ("defective" if mono["score"] >= 0.05 else "good")
    assert (mono["threshold"], mono["threshold_from"]) == (0.05, "fitted")
    assert (poly["threshold"], poly["threshold_from"]) == (0.9, "override")
    grey = Image.open(io.BytesIO(base64.b64decode(mono["map"])))
    assert (grey.format, grey.mode, grey.size) == ("PNG", "L", (60, 50))

    body = {"dataframe_records": rows((png, "mono"))}
    status, answer = post(server, body | {"params": {"map_bits": 0, "threshold": 0.99}})
    assert status == 200, answer
    (given,) = answer["predictions"]
    assert given["map"] is None
    assert given["score"] == pytest.approx(mono["score"], abs=1e-6)
    assert (given["threshold"], given["threshold_from"], given["decision"]) == (
        0.99, "request", "good",
    )  # fmt: skip
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


@pytest.mark.slow
def test_two_workers_from_a_folder_log_every_request_and_end_on_sigterm(
    tiny_model: Path, png: bytes, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "models" / "pipeline")
    (tmp_path / "models" / "thresholds.json").write_text(json.dumps(THRESHOLDS))
    save_model(tmp_path / "models", tmp_path / "model")
    command = ["python", "-m", "decodiff_pipeline.serving.server", "--model"]
    command += [str(tmp_path / "model"), "--workers", "2", "--port"]
    log = tmp_path / "log"
    variables = {"DECODIFF_REQUEST_LOG": str(log), "DECODIFF_LOG_IMAGES": "all"}
    with serving(command, tmp_path, **variables) as address:
        body = {"dataframe_records": rows((png, "mono"), (png, "poly"))}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: post(address, body), range(24)))
        assert {status for status, _ in answers} == {200}
        status, _ = post(address, {"dataframe_records": rows((b"text", "mono"))})
        assert status == 400
        for _ in range(4):  # whichever worker is asked tells of all
            with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:  # noqa: S310
                told = answer.read().decode()
            for line in (
                'decodiff_requests_total{endpoint="invocations",status="200"} 24.0',
                'decodiff_requests_total{endpoint="invocations",status="400"} 1.0',
                'decodiff_score_count{category="poly"} 24.0',
                'decodiff_decisions_total{category="poly",decision="none"} 24.0',
                f'decodiff_model_info{{model_sha256="{folder_sha256(tiny_model)}",'
                'model_version=""} 1.0',
            ):
                assert line in told.splitlines()
        port = address.rsplit(":", 1)[1]
        check = [sys.executable, "-m", "decodiff_pipeline.serving.server", "--check", "--port"]
        assert subprocess.run([*check, port], check=False).returncode == 0
    assert subprocess.run([*check, port], check=False, capture_output=True).returncode == 1
    told = [row for _, answer in answers for row in answer["predictions"]]
    assert {row["model_version"] for row in told} == {None}
    assert {row["model_sha256"] for row in told} == {folder_sha256(tiny_model)}
    (file,) = log.glob("*.jsonl")
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((line["request_id"], line["category"], line["score"]) for line in logged) == (
        sorted((row["request_id"], row["category"], row["score"]) for row in told)
    )
    recent = RecentSource(log).rows(None, scores_of=logged[0]["scores_sha256"])
    assert len(recent) == 48
    assert RecentSource(log).read(recent["path"][0]).size == (60, 50)
