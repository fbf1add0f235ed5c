"""Back to the champion before, within seconds: two aliases are moved, no model is loaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.registry import audit
from decodiff_pipeline.registry.aliases import CHAMPION, PREVIOUS, REPLACED, Registry

if TYPE_CHECKING:
    from pathlib import Path

    from decodiff_pipeline.registry.promotion_config import RollbackConfig

logger = logging.getLogger(__name__)


def roll_back(name: str, config: RollbackConfig, project: Path) -> dict[str, Any]:
    """Make ``previous`` the champion again.

    ``previous`` goes on to the version that this one had replaced in its time, never to the one
    that is withdrawn: a second rollback goes further back. The withdrawn version keeps the reason
    as a tag, and the promotion refuses it from then on.

    Args:
        name: Of the registered model.
        config: The reason.
        project: A folder of the repository, for the state of the code.

    Returns:
        The line of the audit log, with ``outcome`` ``rolled back``.

    Raises:
        ConfigurationError: No reason was given.
        ModelError: There is no previous champion, or MLflow cannot be reached.
    """
    if config.reason is None:
        msg = (
            "rollback.reason is empty; say why the champion goes: "
            "kedro run --pipelines rollback --params 'rollback.reason=…'"
        )
        raise ConfigurationError(msg)
    registry = Registry(name)
    with registry.locked():
        aliases = registry.aliases()
        withdrawn, restored = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if restored is None or restored == withdrawn:
            msg = (
                f"{name} has no previous champion to go back to (champion: version {withdrawn}); "
                "promote another version: kedro run --pipelines promotion --params "
                "promotion.challenger=NUMBER"
            )
            raise ModelError(msg)
        version = registry.version(restored)
        registry.point(CHAMPION, restored)
        registry.point(PREVIOUS, _before(registry, version.tags.get(REPLACED), withdrawn))
        line = audit.record(
            "rollback",
            project,
            name=name,
            outcome="rolled back",
            from_version=withdrawn,
            to_version=restored,
            reason=config.reason,
        )
        if withdrawn is not None:
            registry.tag(withdrawn, audit.as_tags(line))
    return line


def _before(registry: Registry, number: str | None, withdrawn: str | None) -> str | None:
    """The version that the restored one had replaced, if it is still there."""
    if not number or number == withdrawn:
        return None
    try:
        return registry.version(number).number
    except ModelError:
        logger.info("version %s, the champion before, is not in the registry any more", number)
        return None
