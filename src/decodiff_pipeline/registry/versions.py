"""Versions of a model by alias or number, their tags, and moves of aliases. Imports no torch."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.registry.alias_lock import AliasLock
from decodiff_pipeline.tracking.mlflow_values import (
    MAX_TAG,
    UNKNOWN,
    first_line,
    prepare_environment,
)
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS = "champion", "previous"
# Tags of a version.
REPLACED = "promotion.replaced"  # number of the champion that it replaced; empty without one
ROLLED_BACK = "rollback.reason"  # why it was withdrawn


@dataclass(frozen=True)
class Version:
    """A version in the registry."""

    name: str
    number: str
    tags: Mapping[str, str]  # provenance, promotions and rollbacks
    run_id: str = ""  # of the run that registered it
    model_id: str = ""  # of its logged model; empty if the version was looked up

    @property
    def uri(self) -> str:
        """URI of the version for MLflow."""
        return f"models:/{self.name}/{self.number}"


class Registry:
    """The versions of one model.

    The constructor and every method but `tag` raise ``ModelError`` if MLflow cannot be reached.
    """

    def __init__(self, name: str) -> None:
        prepare_environment()
        import mlflow

        self.name = name
        self.uri: str = mlflow.get_registry_uri()
        with self._as_model_error("read"):
            self.client: MlflowClient = mlflow.MlflowClient()
        self._lock = AliasLock(self.client, name)

    def aliases(self) -> dict[str, str]:
        """Version numbers by alias; raises ``ModelError`` if there is no such model."""
        with self._as_model_error("read"):
            aliases = self.client.get_registered_model(self.name).aliases
        return {alias: str(number) for alias, number in aliases.items()}

    def version(self, alias_or_number: str) -> Version:
        """A version by alias or number; raises ``ModelError`` if there is none."""
        number = self.aliases().get(alias_or_number, alias_or_number)
        if not number.isdigit():
            raise ModelError(
                f"no version of {self.name} has the alias {alias_or_number!r}; "
                f"run {kedro_run('registration')}, or name a version by its number"
            )
        with self._as_model_error("read"):
            return _version(self.client, self.name, number)

    def champion(self) -> Version | None:
        """The version with the alias ``champion``, if there is one."""
        with self._as_model_error("read"):
            return find_champion(self.name)

    def point(self, alias: str, number: str | None) -> None:
        """Set an alias to a version, or remove it (``None``).

        A request that failed counts as done if the alias has moved: a server may answer too late.

        Raises:
            ModelError: The alias has not moved, or this process has lost the lock.
        """
        try:
            with self._as_model_error("written"):
                self._lock.require()
                if number is None:
                    self.client.delete_registered_model_alias(self.name, alias)
                else:
                    self.client.set_registered_model_alias(self.name, alias, number)
        except ModelError:
            if self.aliases().get(alias) != number:
                raise

    def set_champion(self, number: str, before: str | None) -> list[str]:
        """Set ``champion`` to a version, and ``previous`` to the version before it or none.

        Returns:
            A note for the audit log if only ``champion`` moved, else an empty list.

        Raises:
            ModelError: ``champion`` did not move.
        """
        self.point(CHAMPION, number)
        try:
            self.point(PREVIOUS, before)
        except ModelError as error:
            return [f"the alias {PREVIOUS} was not set to version {before}: {error}"]
        return []

    def model_tags(self) -> dict[str, str]:
        """Tags of the registered model, not of a version."""
        with self._as_model_error("read"):
            return dict(self.client.get_registered_model(self.name).tags)

    def tag_model(self, key: str, value: str | None) -> None:
        """Set a tag of the registered model, or remove it (``None``)."""
        with self._as_model_error("written"):
            if value is None:
                self.client.delete_registered_model_tag(self.name, key)
            else:
                self.client.set_registered_model_tag(self.name, key, value)

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version, truncated to MLflow's limit.

        A failure is logged and not raised: an alias may have moved, and the caller still has to
        write that to the audit log.
        """
        try:
            with self._as_model_error("written"):
                for key, value in tags.items():
                    self.client.set_model_version_tag(self.name, number, key, value[:MAX_TAG])
        except ModelError as error:
            logger.warning("the tags of version %s could not be set: %s", number, error)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the aliases of this model; waits for other processes and machines."""
        with ExitStack() as stack:
            with self._as_model_error("written"):
                stack.enter_context(self._lock.held())
            yield

    @contextmanager
    def _as_model_error(self, done: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            raise ModelError(
                f"the versions of {self.name} in MLflow at {redact(self.uri)} cannot be {done} "
                f"({first_line(error)}); check MLflow, or run "
                f"{kedro_run('registration')} first"
            ) from error


def find_champion(name: str) -> Version | None:
    """The version with the alias ``champion``; ``None`` without one or without such a model.

    Raises:
        Exception: MLflow, requests or SQLAlchemy cannot reach the store.
    """
    prepare_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        number = client.get_registered_model(name).aliases.get(CHAMPION)
    except MlflowException as error:
        if error.error_code == UNKNOWN:
            return None
        raise
    return None if number is None else _version(client, name, str(number))


def _version(client: MlflowClient, name: str, number: str) -> Version:
    version = client.get_model_version(name, number)
    return Version(name, str(version.version), dict(version.tags), str(version.run_id))


def require_registry() -> None:
    """Check that MLflow's registry answers.

    Raises:
        ConfigurationError: It does not answer; the message gives its URI.
    """
    prepare_environment()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.MlflowClient().search_registered_models(max_results=1)
    except (MlflowException, OSError) as error:
        raise ConfigurationError(
            f"MLflow at {redact(mlflow.get_registry_uri())} does not answer "
            f"({first_line(error)}); check the server or MLFLOW_TRACKING_URI"
        ) from error
