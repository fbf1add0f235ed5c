"""Nodes of the rollback pipeline."""

from __future__ import annotations

from typing import Any

from decodiff_pipeline.registry.config import RegistrationConfig, RollbackConfig


def roll_back(
    provenance: dict[str, Any], registration: RegistrationConfig, rollback: RollbackConfig
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make the version with the alias ``previous`` the champion.

    First it completes the move of a run that was killed before the audit log had its line. If
    that move was a rollback, there is no further one.

    Returns:
        The outcome as a JSON value, and the new lines of the audit log.
    """
    from decodiff_pipeline.registry import audit
    from decodiff_pipeline.registry import rollback as registry

    finished = audit.finish_move(registration.model_name)
    lines = [] if finished is None else [finished]
    if finished is None or finished["action"] != "rollback":
        lines.append(registry.roll_back(registration.model_name, rollback, provenance))
    return lines[-1], lines


def settle(done: dict[str, Any]) -> None:
    """Mark the move as logged, after the audit log is saved."""
    from decodiff_pipeline.registry import audit

    audit.settle_move(done["name"])
