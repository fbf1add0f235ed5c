"""The commands of the pages on retraining, promotion, monitoring and serving run as they stand."""

from __future__ import annotations

import sys

import pytest
from benchmarks.documented_commands import PAGES, SKIPPED, line, outcomes, statements

pytestmark = pytest.mark.slow


def test_every_documented_command_of_the_loop_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(outcomes())
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *map(line, found), ""]))
    assert not [line(one) for one in found if one.code not in (0, None)]
    assert {one.page for one in found} == set(PAGES)
    reasons = {one.output for one in found if one.code is None}
    assert reasons == set(SKIPPED.values())  # a reason that nothing needs goes


def test_a_statement_goes_on_over_lines() -> None:
    block = "a --b \\\n    c   # why\nd |\n  e '1\n 2'\nx=1\nf && g ||\n h\n"
    assert statements(block) == ["a --b      c", "d |   e '1\n 2'", "x=1", "f && g ||  h"]
