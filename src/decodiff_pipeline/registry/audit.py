"""The audit log of promotions and rollbacks, as JSON lines, as tags and as text.

A tag of the registered model holds the line of a move until the line is written.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.atomic import append_lines
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry.alias_lock import LEASE, holder, is_dead
from decodiff_pipeline.registry.versions import CHAMPION, PREVIOUS, Registry
from decodiff_pipeline.reporting.formatting import escaped, markdown_table, significant, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

# Name of the CI service, variable that only it sets, and template of the run's URL.
SERVICES = (
    (
        "github-actions",
        "GITHUB_ACTIONS",
        "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
    ),
    ("gitlab-ci", "GITLAB_CI", "{CI_JOB_URL}"),
)
HEADER = ("gate", "category", "metric", "challenger", "reference", "limit", "")
LONGEST = 1000  # characters of a text in Markdown
UNLOGGED = "audit.unlogged"  # tag of the registered model
KEPT_IN_TAG = ("action", "at", "by", "git_commit", "git_dirty", "mlflow_run_id", "data_digest",
               "name", "outcome", "from_version", "to_version", "reason")  # fmt: skip
LONGEST_REASON = 2000  # characters, because MLflow limits the length of tags


def actor(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The user and service that started this process, without the host name.

    Returns:
        ``user``, ``host`` (the CI service, or the operating system such as ``linux``) and
        ``run_url``.
    """
    for name, variable, template in SERVICES:
        if environment.get(variable):
            user = environment.get("GITHUB_ACTOR") or environment.get("GITLAB_USER_LOGIN")
            url = _format_url(template, environment)
            return {"user": user or _user(), "host": name, "run_url": url}
    return {"user": _user(), "host": platform.system().lower(), "run_url": None}


def record(action: str, provenance: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Create a line of the audit log.

    Args:
        action: ``promotion`` or ``rollback``.
        provenance: Code, data and run; see `datasets.provenance.ProvenanceDataset`.
        **facts: Further fields; see `promotion.promote` and `rollback.roll_back`.
    """
    return {
        "action": action,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": actor(),
        **{key: value for key, value in provenance.items() if key != "registered_version"},
        **facts,
    }


def append(log: Path, line: Mapping[str, Any]) -> None:
    """Append a line to a JSON Lines file and flush it to disk."""
    log.parent.mkdir(parents=True, exist_ok=True)
    append_lines(log, f"{json.dumps(line, ensure_ascii=False)}\n".encode(), sync=True)


def as_tags(line: Mapping[str, Any]) -> dict[str, str]:
    """The version's tags that store a line."""
    action = line["action"]
    keys = ("outcome", "at", "reason", "from_version", "to_version", "mlflow_run_id")
    tags = {f"{action}.{key}": line[key] for key in keys if line.get(key) is not None}
    tags[f"{action}.by"] = json.dumps({k: v for k, v in line["by"].items() if v is not None})
    failed = [
        f"{gate['name']} ({gate['category']}, {gate['metric']}): {gate['explanation']}"
        for gate in line.get("gates", [])
        if not gate["passed"]
    ]
    if line.get("gates"):
        tags[f"{action}.gates"] = f"{len(line['gates'])} asked, {len(failed)} failed"
        tags[f"{action}.failed"] = "\n".join(failed) or "none"
    return {key: str(value) for key, value in tags.items()}


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return None


def _format_url(template: str, environment: Mapping[str, str]) -> str | None:
    try:
        return template.format_map(environment)
    except KeyError:
        return None


def headline(line: Mapping[str, Any]) -> str:
    """The outcome of a line as a sentence."""
    old, new = line["from_version"], line["to_version"]
    promoted = "the first champion" if old is None else f"champion in place of version {old}"
    unchanged = "there is no champion" if old is None else f"version {old} stays champion"
    failed = sum(not gate["passed"] for gate in line.get("gates", []))
    sentences = {
        "promoted": f"version {new} is {promoted}",
        "overridden": f"version {new} is {promoted}, {failed} failed gates overridden: "
        f"{line['reason']}",
        "refused": f"version {new} is refused by {failed} gates; {unchanged}",
        "outdated": f"version {new} is not promoted: the champion moved meanwhile",
        "unchanged": f"version {new} is the champion already; nothing moved",
        "rolled back": f"version {new} is champion again in place of version {old}: "
        f"{line['reason']}",
    }
    return f"{line['name']}: {sentences[line['outcome']]}"


def render_table(line: Mapping[str, Any]) -> str:
    """A line of the audit log for a terminal: a table of gates, explanations of failures, notes."""
    gates = line.get("gates", [])
    text = [headline(line)]
    if gates:
        text.append(text_table([HEADER, *map(_cells, gates)], right=False))
    for gate in gates:
        if not gate["passed"]:
            label = f"{gate['name']}, {gate['category']}, {gate['metric']}"
            text.append(f"failed: {label}: {gate['explanation']}")
    text += [f"note: {note}" for note in line.get("notes", [])]
    return "\n".join(text)


def render_markdown(line: Mapping[str, Any]) -> str:
    """A line of the audit log as Markdown, with every gate and its explanation."""
    actor_text = " ".join(str(value) for value in line["by"].values() if value is not None)
    text = [f"# {escaped(headline(line), LONGEST)}", ""]
    text += [f"{line['at']}, by {escaped(actor_text)}", ""]
    text += [f"- {escaped(note, LONGEST)}" for note in line.get("notes", [])]
    if line.get("notes"):
        text.append("")
    if line.get("gates"):
        rows = [[*HEADER[:-1], "passed", "why"]]
        rows += [[*_cells(gate), gate["explanation"]] for gate in line["gates"]]
        text += [markdown_table([[escaped(cell, LONGEST) for cell in row] for row in rows]), ""]
    code = f"{line['git_commit']}{' with changes' if line['git_dirty'] else ''}"
    text.append(f"Code {code}; data {line.get('data_digest', '')[:12]}.")
    return "\n".join(text) + "\n"


def _cells(gate: Mapping[str, Any]) -> list[str]:
    numbers = [significant(gate[key], 4) for key in ("value", "reference", "limit")]
    result = "passed" if gate["passed"] else "FAILED"
    return [gate["name"], gate["category"], gate["metric"], *numbers, result]


def announce_move(registry: Registry, line: Mapping[str, Any], before: str | None) -> None:
    """Store the line of a move in the tag `UNLOGGED` before an alias moves.

    `settle_move` removes the tag when the line is in the audit log. If the process is killed in
    between, `finish_move` of the next promotion or rollback corrects the aliases and returns the
    line. Without the tag, the log would miss the move, and a repeated rollback would go back a
    second version.

    Args:
        registry: Registry of the model; the caller holds its lock.
        before: Number of the version that gets the alias ``previous``.

    Raises:
        ModelError: MLflow cannot be reached; no alias moved.
    """
    fields = {key: line[key] for key in KEPT_IN_TAG if key in line}
    fields["reason"] = fields.get("reason") and fields["reason"][:LONGEST_REASON]
    registry.tag_model(UNLOGGED, json.dumps({"line": fields, "previous": before, **holder()}))


def finish_move(name: str) -> dict[str, Any] | None:
    """Complete the move of a process that was killed before it wrote the audit log.

    Returns:
        The line for the audit log; `None` without such a move, or if the champion did not move.

    Raises:
        ModelError: There is no such model, or MLflow cannot be reached.
    """
    registry = Registry(name)
    if UNLOGGED not in registry.model_tags():
        return None
    with registry.locked():
        text = registry.model_tags().get(UNLOGGED)
        if text is None or not _is_interrupted(announced := json.loads(text)):
            return None
        line, aliases = announced["line"], registry.aliases()
        if aliases.get(CHAMPION) != line["to_version"]:
            registry.tag_model(UNLOGGED, None)
            return None
        line["notes"] = ["the run that moved the champion ended before this line was written"]
        if aliases.get(PREVIOUS) != announced["previous"]:
            registry.point(PREVIOUS, announced["previous"])
        registry.tag(_subject(line), as_tags(line))
    logger.warning(
        "%s: version %s became champion in a %s that was interrupted (%s); its line is added to "
        "the audit log now", name, line["to_version"], line["action"], line["at"],
    )  # fmt: skip
    return dict(line)


def settle_move(name: str) -> None:
    """Remove the tag after the line is written; logs a warning if MLflow cannot be reached."""
    try:
        registry = Registry(name)
        announced = json.loads(registry.model_tags().get(UNLOGGED, "{}"))
        if announced and (holder().items() <= announced.items() or _is_interrupted(announced)):
            registry.tag_model(UNLOGGED, None)
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
