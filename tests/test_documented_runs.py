"""How `benchmarks.documented_commands` takes a page apart; it runs the pages itself."""

from __future__ import annotations

from benchmarks.documented_commands import statements


def test_a_statement_goes_on_over_lines() -> None:
    block = "a --b \\\n    c   # why\nd |\n  e '1\n 2'\nx=1\nf && g ||\n h\n"
    assert statements(block) == ["a --b      c", "d |   e '1\n 2'", "x=1", "f && g ||  h"]
