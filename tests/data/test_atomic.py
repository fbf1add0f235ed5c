"""Lines that are added whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.data.atomic import append_lines

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "log.jsonl", os.write
    path.write_text("first\n")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda number, data: write(number, data[:3]))
        with pytest.raises(OSError, match="No space left"):
            append_lines(path, b"second\n")
    assert path.read_text() == "first\n"
    append_lines(path, b"third\n")
    assert path.read_text() == "first\nthird\n"


def test_a_torn_line_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("first\ntor")
    append_lines(path, b"second\n")
    assert path.read_text() == "first\ntor\nsecond\n"
