"""An MLflow server that is away, or that stops answering during a run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Outage = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a port where nobody listens, with a user and a password."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://me:hunter22@127.0.0.1:{free_port()}"


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """A context in which methods of MLflow's client fail."""
    import mlflow

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    @contextmanager
    def away(*methods: str) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for method in methods:
                patch.setattr(mlflow.MlflowClient, method, refuse)
            yield

    return away
