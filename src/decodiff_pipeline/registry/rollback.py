"""Restores the previous champion: moves two aliases and loads no model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.registry import audit
from decodiff_pipeline.registry.versions import (
    CHAMPION,
    PREVIOUS,
    REPLACED,
    ROLLED_BACK,
    Registry,
    Version,
)
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.registry.config import RollbackConfig

logger = logging.getLogger(__name__)


def roll_back(name: str, config: RollbackConfig, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``previous`` the champion again.

    ``previous`` moves to the version that the restored champion had replaced, never to the
    withdrawn one, so a second rollback goes further back. The withdrawn version gets the reason as
    a tag, by which the promotion refuses it. The caller writes the returned line to the audit log,
    then calls `audit.settle_move`.

    Returns:
        The line of the audit log, with ``outcome`` ``rolled back``.

    Raises:
        ConfigurationError: The configuration has no reason.
        ModelError: There is no previous champion, or MLflow cannot be reached.
    """
    if config.reason is None:
        raise ConfigurationError(
            "rollback.reason is empty; give the reason: "
            f"{kedro_run('rollback')} --params 'rollback.reason=…'"
        )
    registry = Registry(name)
    with registry.locked():
        aliases = registry.aliases()
        withdrawn, restored = aliases.get(CHAMPION), _restored(registry, aliases)
        before = _predecessor(registry, registry.version(restored), withdrawn)
        if withdrawn is not None:
            # Before the aliases move, so that a killed process leaves it marked as withdrawn.
            registry.tag(withdrawn, {ROLLED_BACK: config.reason})
        line = audit.record(
            "rollback",
            provenance,
            name=name,
            outcome="rolled back",
            from_version=withdrawn,
            to_version=restored,
            reason=config.reason,
        )
        audit.announce_move(registry, line, before)
        line["notes"] = registry.set_champion(restored, before)
        if withdrawn is not None:
            registry.tag(withdrawn, audit.as_tags(line))
    return line


def _restored(registry: Registry, aliases: Mapping[str, str]) -> str:
    """Number of the version to restore."""
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is not None and previous in (None, champion):  # a promotion was interrupted
        previous = _predecessor(registry, registry.version(champion), champion)
    if previous is None:
        raise ModelError(
            f"{registry.name} has no previous champion to restore (champion: version "
            f"{champion}); promote another version: {kedro_run('promotion')} --params "
            "promotion.challenger=NUMBER"
        )
    return previous


def _predecessor(registry: Registry, version: Version, withdrawn: str | None) -> str | None:
    """Number of the latest champion before a version that was not withdrawn."""
    visited, number = {version.number}, version.tags.get(REPLACED)
    while number and number not in visited:
        visited.add(number)
        try:
            candidate = registry.version(number)
        except ModelError as error:
            if getattr(error.__cause__, "error_code", None) != UNKNOWN:
                raise
            logger.info("the earlier champion, version %s, was deleted from the registry", number)
            return None
        if number != withdrawn and not candidate.tags.get(ROLLED_BACK):
            return number
        number = candidate.tags.get(REPLACED)
    return None
