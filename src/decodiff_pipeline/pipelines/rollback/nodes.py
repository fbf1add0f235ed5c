"""The node that goes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decodiff_pipeline.registry.config import RegistrationConfig, RollbackConfig


def roll_back(
    folder: Path, registration: RegistrationConfig, rollback: RollbackConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the previous champion the champion again.

    Args:
        folder: Of the repository, for the state of the code.
        registration: Name of the model.
        rollback: The reason.

    Returns:
        What was done, as JSON and as a line of the audit log; see
        `decodiff_pipeline.registry.rollback.roll_back`.

    Raises:
        ConfigurationError: No reason was given.
        ModelError: There is no previous champion, or MLflow cannot be reached.
    """
    from decodiff_pipeline.registry import rollback as registry

    line = registry.roll_back(registration.model_name, rollback, folder)
    return line, line
