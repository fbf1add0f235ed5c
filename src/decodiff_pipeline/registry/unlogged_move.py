"""A move of the champion that the audit log does not have yet, kept in the registry until it does.

It is a tag of the registered model, set before an alias moves and removed when the line is in the
log. A run that is killed in between leaves it: the next promotion or rollback puts the aliases
right and writes the line. Without it that move would be in no log, and a rollback that is started
again would go back a second version.
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
LONGEST_REASON = 2000  # characters, for a tag's sake


def announce(registry: Registry, line: Mapping[str, Any], before: str | None) -> None:
    """Say which move comes now; the lock on the aliases is held.

    Args:
        registry: Of the model.
        line: Of the audit log.
        before: The version that gets the alias ``previous``.

    Raises:
        ModelError: MLflow cannot be reached; nothing was moved.
    """
    kept = {key: line[key] for key in KEPT if key in line}
    kept["reason"] = kept.get("reason") and kept["reason"][:LONGEST_REASON]
    registry.tag_model(TAG, json.dumps({"line": kept, "previous": before, **holder()}))


def finish(name: str) -> dict[str, Any] | None:
    """Finish the move of a run that was killed before its line was in the audit log.

    Args:
        name: Of the registered model.

    Returns:
        The line for the audit log. `None` where there is no such move, or it never took place.

    Raises:
        ModelError: There is no such model, or MLflow cannot be reached.
    """
    registry = Registry(name)
    if TAG not in registry.model_tags():
        return None
    with registry.locked():
        text = registry.model_tags().get(TAG)
        if text is None or not _is_cut_off(left := json.loads(text)):
            return None
        line, aliases = left["line"], registry.aliases()
        if aliases.get(CHAMPION) != line["to_version"]:
            registry.tag_model(TAG, None)
            return None
        line["notes"] = ["the run that moved the champion ended before this line was written"]
        if aliases.get(PREVIOUS) != left["previous"]:
            registry.point(PREVIOUS, left["previous"])
        registry.tag(_subject(line), audit.as_tags(line))
    logger.warning(
        "%s: version %s became champion in a %s that was cut off (%s); its line is added to the "
        "audit log now", name, line["to_version"], line["action"], line["at"],
    )  # fmt: skip
    return dict(line)


def settle(name: str) -> None:
    """Forget the announced move: its line is in the audit log."""
    try:
        registry = Registry(name)
        left = json.loads(registry.model_tags().get(TAG, "{}"))
        if left and (holder().items() <= left.items() or _is_cut_off(left)):
            registry.tag_model(TAG, None)
    except ModelError as error:
        logger.warning("the audit log has this move, and the next run will add it again: %s", error)


def _subject(line: Mapping[str, Any]) -> str:
    """The version that a line is about: promoted, or withdrawn."""
    return str(line["from_version" if line["action"] == "rollback" else "to_version"])


def _is_cut_off(left: Mapping[str, Any]) -> bool:
    """Whether the run that announced a move is over."""
    age = datetime.now(UTC) - datetime.fromisoformat(left["line"]["at"])
    return is_dead(left) or age > timedelta(seconds=LEASE)
