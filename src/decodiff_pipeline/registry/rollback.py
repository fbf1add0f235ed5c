"""Back to the champion before, within seconds: two aliases are moved, no model is loaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.registry import audit, unlogged_move
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

    ``previous`` goes on to the version that this one had replaced in its time, never to the one
    that is withdrawn: a second rollback goes further back. The withdrawn version keeps the reason
    as a tag, and the promotion refuses it from then on.

    Returns:
        The line of the audit log, with ``outcome`` ``rolled back``; `unlogged_move.settle` is
        called when it is written there.

    Raises:
        ConfigurationError: No reason was given.
        ModelError: There is no previous champion, or MLflow cannot be reached.
    """
    if config.reason is None:
        raise ConfigurationError(
            "rollback.reason is empty; say why the champion goes: "
            f"{kedro_run('rollback')} --params 'rollback.reason=…'"
        )
    registry = Registry(name)
    with registry.locked():
        aliases = registry.aliases()
        withdrawn, restored = aliases.get(CHAMPION), _restored(registry, aliases)
        before = _before(registry, registry.version(restored), withdrawn)
        if withdrawn is not None:
            # First, so that it is known as withdrawn wherever this is cut off.
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
        unlogged_move.announce(registry, line, before)
        line["notes"] = registry.set_champion(restored, before)
        if withdrawn is not None:
            registry.tag(withdrawn, audit.as_tags(line))
    return line


def _restored(registry: Registry, aliases: Mapping[str, str]) -> str:
    """The version to go back to."""
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is not None and previous in (None, champion):  # a promotion was cut off
        previous = _before(registry, registry.version(champion), champion)
    if previous is None:
        raise ModelError(
            f"{registry.name} has no previous champion to go back to (champion: version "
            f"{champion}); promote another version: {kedro_run('promotion')} --params "
            "promotion.challenger=NUMBER"
        )
    return previous


def _before(registry: Registry, version: Version, withdrawn: str | None) -> str | None:
    """The version that this one had replaced, or one before that, which is not withdrawn."""
    seen, number = {version.number}, version.tags.get(REPLACED)
    while number and number not in seen:
        seen.add(number)
        try:
            found = registry.version(number)
        except ModelError as error:
            if getattr(error.__cause__, "error_code", None) != UNKNOWN:
                raise
            logger.info("version %s, a champion before, is not in the registry any more", number)
            return None
        if number != withdrawn and not found.tags.get(ROLLED_BACK):
            return number
        number = found.tags.get(REPLACED)
    return None
