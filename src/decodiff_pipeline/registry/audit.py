"""The audit log of promotions and rollbacks, as JSON lines, as tags and as text."""

from __future__ import annotations

import getpass
import json
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.reporting.formatting import escaped, markdown_table, significant, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def actor(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The user and service that started this process, without the host name.

    Args:
        environment: Environment variables.

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
