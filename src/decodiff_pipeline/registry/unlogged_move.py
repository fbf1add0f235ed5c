"""A write-ahead tag for moves of the champion, so that the audit log misses none.

The tag of the registered model is set before an alias moves and removed when the line is in the
audit log. If the process is killed in between, the next promotion or rollback finds the tag,
corrects the aliases and writes the line. Without the tag, the log would miss the move, and a
repeated rollback would go back a second version.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry import audit
from decodiff_pipeline.registry.alias_lock import LEASE, holder, is_dead
from decodiff_pipeline.registry.versions import CHAMPION, PREVIOUS, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

TAG = "audit.unlogged"
KEPT = ("action", "at", "by", "git_commit", "git_dirty", "mlflow_run_id", "data_digest", "name",
        "outcome", "from_version", "to_version", "reason")  # fmt: skip
LONGEST_REASON = 2000  # characters, because MLflow limits the length of tags


def announce(registry: Registry, line: Mapping[str, Any], before: str | None) -> None:
    """Set the tag; the caller holds the lock on the aliases.

    Args:
        registry: Registry of the model.
        line: The line of the audit log.
        before: Number of the version that gets the alias ``previous``.

    Raises:
        ModelError: MLflow cannot be reached; no alias moved.
    """
    fields = {key: line[key] for key in KEPT if key in line}
    fields["reason"] = fields.get("reason") and fields["reason"][:LONGEST_REASON]
    registry.tag_model(TAG, json.dumps({"line": fields, "previous": before, **holder()}))


def finish(name: str) -> dict[str, Any] | None:
    """Complete the move of a process that was killed before it wrote the audit log.

    Args:
        name: Name of the registered model.

    Returns:
        The line for the audit log; `None` without such a move, or if the champion did not move.

    Raises:
        ModelError: There is no such model, or MLflow cannot be reached.
    """
    registry = Registry(name)
    if TAG not in registry.model_tags():
        return None
    with registry.locked():
        text = registry.model_tags().get(TAG)
        if text is None or not _is_interrupted(announced := json.loads(text)):
            return None
        line, aliases = announced["line"], registry.aliases()
        if aliases.get(CHAMPION) != line["to_version"]:
            registry.tag_model(TAG, None)
            return None
        line["notes"] = ["the run that moved the champion ended before this line was written"]
        if aliases.get(PREVIOUS) != announced["previous"]:
            registry.point(PREVIOUS, announced["previous"])
        registry.tag(_subject(line), audit.as_tags(line))
    logger.warning(
        "%s: version %s became champion in a %s that was interrupted (%s); its line is added to "
        "the audit log now", name, line["to_version"], line["action"], line["at"],
    )  # fmt: skip
    return dict(line)


def settle(name: str) -> None:
    """Remove the tag after the line is written; logs a warning if MLflow cannot be reached."""
    try:
        registry = Registry(name)
        announced = json.loads(registry.model_tags().get(TAG, "{}"))
        if announced and (holder().items() <= announced.items() or _is_interrupted(announced)):
            registry.tag_model(TAG, None)
    except ModelError as error:
        logger.warning(
            "the audit log has this move, but its tag could not be removed, so the next run adds "
            "the line again: %s", error,
        )  # fmt: skip


def _subject(line: Mapping[str, Any]) -> str:
    """Number of the promoted or withdrawn version of a line."""
    return str(line["from_version" if line["action"] == "rollback" else "to_version"])


def _is_interrupted(announced: Mapping[str, Any]) -> bool:
    """Whether the process that announced a move has ended or exceeded `LEASE`."""
    age = datetime.now(UTC) - datetime.fromisoformat(announced["line"]["at"])
    return is_dead(announced) or age > timedelta(seconds=LEASE)
