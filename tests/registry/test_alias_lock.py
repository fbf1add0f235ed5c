"""The lock on the aliases of a model: over processes and machines, and when its holder dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry import alias_lock
from decodiff_pipeline.registry.alias_lock import AliasLock
from decodiff_pipeline.registry.versions import Registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "decodiff"


@pytest.fixture
def client(client: MlflowClient) -> MlflowClient:
    client.create_registered_model(NAME)
    return client


def models(client: MlflowClient) -> set[str]:
    return {model.name for model in client.search_registered_models()}


def leave_behind(client: MlflowClient, **tags: str) -> None:
    client.create_registered_model(f"{NAME}.lock", tags={"holder": "somebody", **tags})


def test_one_at_a_time_holds_the_lock(client: MlflowClient) -> None:
    inside, most = 0, 0

    def hold() -> None:
        nonlocal inside, most
        for _ in range(3):
            with AliasLock(client, NAME).held():
                inside += 1
                most = max(most, inside)
                time.sleep(0.05)
                inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert models(client) == {NAME}


def test_a_killed_process_of_this_machine_is_not_waited_for(client: MlflowClient) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave_behind(client, machine=alias_lock._machine(), process=str(ended.pid))
    started = time.monotonic()
    with AliasLock(client, NAME).held():
        assert time.monotonic() - started < alias_lock.LEASE / 2


def test_the_lock_of_another_machine_is_respected_for_a_while(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alias_lock, "LEASE", 1.0)
    leave_behind(client, machine="elsewhere", process=str(os.getpid()))
    started = time.monotonic()
    with AliasLock(client, NAME).held():
        assert time.monotonic() - started > 1.0


def test_who_lost_the_lock_moves_no_alias(client: MlflowClient) -> None:
    registry = Registry(NAME)
    client.create_model_version(NAME, source="file:///nowhere")
    with registry.locked():
        client.delete_registered_model(f"{NAME}.lock")
        leave_behind(client)
        with pytest.raises(ModelError, match=r"lost the lock decodiff\.lock"):
            registry.point("champion", "1")
    assert registry.aliases() == {}
    assert f"{NAME}.lock" in models(client)  # it is the other's


def test_a_server_that_is_away_is_one_sentence(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    def away(*_: object, **__: object) -> None:
        raise MlflowException("timed out")

    registry = Registry(NAME)
    monkeypatch.setattr(mlflow.MlflowClient, "create_registered_model", away)
    with pytest.raises(ModelError, match="timed out"), registry.locked():
        pass
