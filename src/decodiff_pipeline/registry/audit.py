"""The audit log: who or what moved a model, when and why, as a line, as tags and as text."""

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

# Name of the service, variable that only it sets, and what makes the address of the run.
SERVICES = (
    (
        "github-actions",
        "GITHUB_ACTIONS",
        "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
    ),
    ("gitlab-ci", "GITLAB_CI", "{CI_JOB_URL}"),
)
HEADER = ("gate", "category", "metric", "challenger", "reference", "limit", "")
LONGEST = 1000  # characters of an explanation in Markdown


def actor(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Who or what started this, without the machine's name.

    Args:
        environment: Variables; of CI services only the address of the run and who started it are
            read.

    Returns:
        ``user``, ``host`` (the service, or the system's kind such as ``linux``) and ``run_url``.
    """
    for name, variable, address in SERVICES:
        if environment.get(variable):
            user = environment.get("GITHUB_ACTOR") or environment.get("GITLAB_USER_LOGIN")
            return {"user": user or _user(), "host": name, "run_url": _filled(address, environment)}
    return {"user": _user(), "host": platform.system().lower(), "run_url": None}


def record(action: str, provenance: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """A line of the audit log.

    Args:
        action: ``promotion`` or ``rollback``.
        provenance: Code, data and run; see `datasets.provenance.ProvenanceDataset`.
        **facts: What was done; see `promotion.promote` and `rollback.roll_back`.
    """
    return {
        "action": action,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": actor(),
        **{key: value for key, value in provenance.items() if key != "registered_version"},
        **facts,
    }


def as_tags(line: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a version gets of what was done with it."""
    action = line["action"]
    wanted = ("outcome", "at", "reason", "from_version", "to_version", "mlflow_run_id")
    tags = {f"{action}.{key}": line[key] for key in wanted if line.get(key) is not None}
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


def _filled(address: str, environment: Mapping[str, str]) -> str | None:
    try:
        return address.format_map(environment)
    except KeyError:
        return None


def headline(line: Mapping[str, Any]) -> str:
    """The outcome as a sentence."""
    old, new = line["from_version"], line["to_version"]
    replaced = "the first champion" if old is None else f"champion in place of version {old}"
    kept = "there is no champion" if old is None else f"version {old} stays champion"
    failed = sum(not gate["passed"] for gate in line.get("gates", []))
    sentences = {
        "promoted": f"version {new} is {replaced}",
        "overridden": f"version {new} is {replaced}, {failed} failed gates overridden: "
        f"{line['reason']}",
        "refused": f"version {new} is refused by {failed} gates; {kept}",
        "outdated": f"version {new} is not promoted: the champion moved meanwhile",
        "unchanged": f"version {new} is the champion already; nothing moved",
        "rolled back": f"version {new} is champion again in place of version {old}: "
        f"{line['reason']}",
    }
    return f"{line['name']}: {sentences[line['outcome']]}"


def render_table(line: Mapping[str, Any]) -> str:
    """The outcome for a terminal: a line a gate, then what failed and the notes in full."""
    gates = line.get("gates", [])
    text = [headline(line)]
    if gates:
        text.append(text_table([HEADER, *map(_cells, gates)], right=False))
    for gate in gates:
        if not gate["passed"]:
            place = f"{gate['name']}, {gate['category']}, {gate['metric']}"
            text.append(f"failed: {place}: {gate['explanation']}")
    text += [f"note: {note}" for note in line.get("notes", [])]
    return "\n".join(text)


def render_markdown(line: Mapping[str, Any]) -> str:
    """The outcome with every gate and its explanation."""
    who = " ".join(str(value) for value in line["by"].values() if value is not None)
    text = [f"# {escaped(headline(line), LONGEST)}", "", f"{line['at']}, by {escaped(who)}", ""]
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
    mark = "passed" if gate["passed"] else "FAILED"
    return [gate["name"], gate["category"], gate["metric"], *numbers, mark]
