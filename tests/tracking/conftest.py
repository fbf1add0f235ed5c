"""An MLflow server that is away."""

from __future__ import annotations

import pytest
from tests.servers import free_port


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a port where nobody listens, with a user and a password."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://me:hunter22@127.0.0.1:{free_port()}"
