"""A server that answers late or never does not hold a run up."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.tracking import tracker as tracking
from decodiff_pipeline.tracking.journal import journals
from decodiff_pipeline.tracking.mlflow_values import prepare_environment
from decodiff_pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWERS = {
    "get-by-name": {"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}},
    "create": {"run": {"info": {"run_id": "0" * 32, "experiment_id": "7", "status": "RUNNING"}}},
}


class SlowServer(ThreadingHTTPServer):
    """Speaks enough of MLflow's protocol to take a run, ``seconds`` after it was asked.

    Attributes:
        seconds: ``None`` for never.
        asked: The last part of each request's path.
    """

    daemon_threads = True

    def __init__(self, seconds: float | None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seconds = seconds
        self.asked: list[str] = []
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: SlowServer

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rsplit("/", 1)[1]
        self.server.asked.append(name)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.closing.wait(self.server.seconds):
            return
        body = json.dumps(ANSWERS.get(name, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    started = SlowServer(request.param)
    prepare_environment()
    from mlflow import MlflowClient

    MlflowClient(started.uri)  # imports, which are not the server's fault
    yield started
    started.closing.set()
    started.shutdown()
    started.server_close()


def run_with_fifty_calls(uri: str, folder: Path) -> None:
    run = Tracker(uri, "elpv", run_name="r", tags={}, unsent=folder / "unsent").start()
    for step in range(50):
        run.log_history([{"step": step, "loss": 1.0}], "training_log")
    run.finish("FINISHED")


@pytest.mark.parametrize("server", [0.1], indirect=True)
def test_a_server_that_is_always_slow_is_left_alone_after_its_share(
    server: SlowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.5)
    monkeypatch.setattr(tracking, "SECONDS_AT_END", 0.3)
    run_with_fifty_calls(server.uri, tmp_path)

    # 0.5 s and the call that goes beyond, the status, 0.3 s and the call that goes beyond; a busy
    # machine does less in that time.
    assert 4 <= len(server.asked) <= 13
    assert server.asked[:2] == ["get-by-name", "create"]
    assert "is slow" in caplog.text
    assert "update" in server.asked  # the run is not left as running
    (left,) = journals(tmp_path / "unsent")
    assert '"end"' in left.read_text()


@pytest.mark.parametrize("server", [None], indirect=True)
def test_a_server_that_never_answers_is_asked_twice(
    server: SlowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_with_fifty_calls(server.uri, tmp_path)
    assert server.asked == ["get-by-name"] * 2


@pytest.mark.parametrize("server", [0.05], indirect=True)
def test_a_server_that_was_slow_is_tried_again(
    server: SlowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.02)
    monkeypatch.setattr(tracking, "SHARE", 0.5)
    monkeypatch.setattr(tracking, "PAUSE", 0.2)
    run = Tracker(server.uri, "elpv", run_name="r", tags={}, unsent=tmp_path).start()
    before = len(server.asked)
    run.log_params({"a": 1})
    assert len(server.asked) == before
    time.sleep(0.3)
    run.log_params({"b": 1})
    assert len(server.asked) > before
