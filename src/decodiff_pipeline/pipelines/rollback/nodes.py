"""The node that makes the previous champion the champion again."""

from __future__ import annotations

from typing import Any

from decodiff_pipeline.registry.config import RegistrationConfig, RollbackConfig


def roll_back(
    provenance: dict[str, Any], registration: RegistrationConfig, rollback: RollbackConfig
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """See `decodiff_pipeline.registry.rollback.roll_back`.

    Returns:
        What was done, as JSON and as lines of the audit log.
    """
    from decodiff_pipeline.registry import rollback as registry

    line = registry.roll_back(registration.model_name, rollback, provenance)
    return line, [line]
