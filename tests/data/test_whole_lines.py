"""Lines that are added whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.data.whole_lines import write_whole

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "log.jsonl", os.write
    path.write_text("first\n")
    with path.open("ab+", buffering=0) as file:
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda number, data: write(number, data[:3]))
            with pytest.raises(OSError, match="No space left"):
                write_whole(file.fileno(), b"second\n")
        assert path.read_text() == "first\n"
        write_whole(file.fileno(), b"third\n")
    assert path.read_text() == "first\nthird\n"


def test_a_torn_line_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("first\ntor")
    with path.open("ab+", buffering=0) as file:
        write_whole(file.fileno(), b"second\n")
    assert path.read_text() == "first\ntor\nsecond\n"
