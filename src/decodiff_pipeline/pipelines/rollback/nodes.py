"""The node that makes the previous champion the champion again."""

from __future__ import annotations

from typing import Any

from decodiff_pipeline.registry.config import RegistrationConfig, RollbackConfig


def roll_back(
    provenance: dict[str, Any], registration: RegistrationConfig, rollback: RollbackConfig
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """See `decodiff_pipeline.registry.rollback.roll_back`.

    A rollback that was killed is finished, and nothing else is done.

    Returns:
        What was done, as JSON and as lines of the audit log.
    """
    from decodiff_pipeline.registry import rollback as registry
    from decodiff_pipeline.registry import unlogged_move

    finished = unlogged_move.finish(registration.model_name)
    lines = [] if finished is None else [finished]
    if finished is None or finished["action"] != "rollback":
        lines.append(registry.roll_back(registration.model_name, rollback, provenance))
    return lines[-1], lines


def settle(done: dict[str, Any]) -> None:
    """Tell the registry that the audit log has the move."""
    from decodiff_pipeline.registry import unlogged_move

    unlogged_move.settle(done["name"])
