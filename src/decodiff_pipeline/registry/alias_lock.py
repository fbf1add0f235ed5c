"""One process at a time moves the aliases of a model, on whatever machine it runs."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

LEASE = 60.0  # seconds after which the lock of another machine counts as left behind
PAUSE = 0.2
HOLDER, MACHINE, PROCESS = "holder", "machine", "process"  # tags of the lock
EXISTS = "RESOURCE_ALREADY_EXISTS"


class AliasLock:
    """A lock in the registry: an empty registered model ``<name>.lock``.

    The registry's database holds one model of a name, so of all processes that try to make it, one
    succeeds; it removes it when it is done. This is exclusive on SQLite, PostgreSQL and through a
    server, over any number of machines, as long as no holder is held up for longer than `LEASE`.
    A process that was killed leaves its lock: one on the same machine takes it over at once, others
    after `LEASE`. A holder that was only held up notices by `require`, which is asked before each
    alias is moved; what remains is the time of that one request.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client = client
        self._name = f"{name}.lock"
        self._token: str | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it within the block."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def require(self) -> None:
        """Stop where the lock was taken over by another process.

        Raises:
            ModelError: It was; no alias may be moved any more.
        """
        if self._token is not None and self._tags().get(HOLDER) != self._token:
            raise ModelError(
                f"this process was held up for more than {LEASE:.0f} s and lost the lock "
                f"{self._name}; look at the aliases, and run the command again"
            )

    def _acquire(self) -> None:
        from mlflow.exceptions import MlflowException

        token = uuid.uuid4().hex
        tags = {HOLDER: token, **holder()}
        seen, since = "", time.monotonic()
        while True:
            try:
                self._client.create_registered_model(
                    self._name, tags=tags, description="Aliases are being moved; removed after it."
                )
            except MlflowException as error:
                if error.error_code != EXISTS:
                    raise
            else:
                self._token = token
                return
            found = self._tags()
            if found.get(HOLDER, "") != seen:
                seen, since = found.get(HOLDER, ""), time.monotonic()
                logger.info("waiting for another promotion or rollback (%s)", self._name)
            if found and (is_dead(found) or time.monotonic() - since > LEASE):
                self._remove(seen)
            time.sleep(PAUSE)

    def _release(self) -> None:
        token, self._token = self._token, None
        try:
            self._remove(str(token))
        except Exception as error:  # others take it over
            logger.warning("the lock %s could not be removed: %s", self._name, first_line(error))

    def _remove(self, token: str) -> None:
        """Remove the lock if it is still this one."""
        from mlflow.exceptions import MlflowException

        if self._tags().get(HOLDER) != token:
            return
        try:
            self._client.delete_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != UNKNOWN:
                raise

    def _tags(self) -> dict[str, str]:
        """Of the lock that is there; empty where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if error.error_code == UNKNOWN:
                return {}
            raise


def _machine() -> str:
    """This machine, without its name; a container is one of its own."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def holder() -> dict[str, str]:
    """This process, so that others see whether it is still there."""
    return {MACHINE: _machine(), PROCESS: str(os.getpid())}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process of `holder` ran on this machine and does so no more."""
    if tags.get(MACHINE) != _machine() or not tags.get(PROCESS, "").isdigit():
        return False
    try:
        os.kill(int(tags[PROCESS]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
