"""The outcome of a promotion or a rollback, for a terminal and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.reporting.formatting import escaped, markdown_table, significant, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = ("gate", "category", "metric", "challenger", "reference", "limit", "")
LONGEST = 1000  # characters of an explanation in Markdown


def headline(line: Mapping[str, Any]) -> str:
    """The outcome as a sentence.

    Args:
        line: Of the audit log.
    """
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
