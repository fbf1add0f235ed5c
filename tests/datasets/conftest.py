from __future__ import annotations

import socket

import pytest


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> str:
    """Address, with a password, of a tracking server that is not there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://user:secret@127.0.0.1:{port}"
