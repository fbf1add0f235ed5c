"""A lock for the aliases of a registered model, across processes and machines."""

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

LEASE = 60.0  # seconds after which the lock of a process on another machine expires
PAUSE = 0.2  # seconds between attempts
HOLDER, MACHINE, PROCESS = "holder", "machine", "process"  # tags of the lock
EXISTS = "RESOURCE_ALREADY_EXISTS"


class AliasLock:
    """A lock in the registry: an empty registered model ``<name>.lock``.

    Names of registered models are unique in the registry's database. If several processes create
    the model, one succeeds, and deletes it on release. The lock is exclusive with SQLite,
    PostgreSQL and a server, on any number of machines, unless a holder stalls for longer than
    `LEASE`. If the holder was killed, a process on the same machine takes the lock over at once,
    a process on another machine after `LEASE`. A holder that stalled detects this by `require`,
    which runs before each alias moves. A race remains only during that one request.
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
        """Check that this process still holds the lock.

        Raises:
            ModelError: Another process has taken the lock over, so no alias may move.
        """
        if self._token is not None and self._tags().get(HOLDER) != self._token:
            raise ModelError(
                f"this process stalled for more than {LEASE:.0f} s and lost the lock "
                f"{self._name}; check the aliases, then run the command again"
            )

    def _acquire(self) -> None:
        from mlflow.exceptions import MlflowException

        token = uuid.uuid4().hex
        tags = {HOLDER: token, **holder()}
        other, since = "", time.monotonic()
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
            current = self._tags()
            if current.get(HOLDER, "") != other:
                other, since = current.get(HOLDER, ""), time.monotonic()
                logger.info("waiting for another promotion or rollback (%s)", self._name)
            if current and (is_dead(current) or time.monotonic() - since > LEASE):
                self._remove(other)
            time.sleep(PAUSE)

    def _release(self) -> None:
        token, self._token = self._token, None
        try:
            self._remove(str(token))
        except Exception as error:  # other processes take the lock over
            logger.warning("the lock %s could not be removed: %s", self._name, first_line(error))

    def _remove(self, token: str) -> None:
        """Delete the lock if the token is still its holder."""
        from mlflow.exceptions import MlflowException

        if self._tags().get(HOLDER) != token:
            return
        try:
            self._client.delete_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != UNKNOWN:
                raise

    def _tags(self) -> dict[str, str]:
        """Tags of the current lock; empty if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if error.error_code == UNKNOWN:
                return {}
            raise


def _machine() -> str:
    """Hash of the host name; a container has its own."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def holder() -> dict[str, str]:
    """Tags by which other processes check whether this process is alive, see `is_dead`."""
    return {MACHINE: _machine(), PROCESS: str(os.getpid())}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process of `holder` ran on this machine and has ended."""
    if tags.get(MACHINE) != _machine() or not tags.get(PROCESS, "").isdigit():
        return False
    try:
        os.kill(int(tags[PROCESS]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
