"""Formats numbers and tables as text, for HTML pages, Markdown and the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME = 80
MAX_ITEMS = 20


def number(value: float | None) -> str:
    """Three decimals; "-" for None."""
    return "-" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with a sign; "-" for None."""
    # U+2212, which is as wide as the plus sign
    return "-" if value is None else f"{value:+.3f}".replace("-", "−")  # noqa: RUF001


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def significant(value: float | None, digits: int = 3) -> str:
    """A number of significant digits; "-" for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def listed(items: Sequence[str]) -> str:
    """The first `MAX_ITEMS` items, comma-separated, and the number of the others."""
    more = len(items) - MAX_ITEMS
    return ", ".join(items[:MAX_ITEMS]) + (f" and {more} more" if more > 0 else "")


def escaped(text: object, longest: int = MAX_NAME) -> str:
    """Escape text for Markdown and HTML, on one line of at most ``longest`` characters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("@", "&#64;")  # no mention of a GitHub user
    return re.sub(r"([\\`*_{}\[\]()#|~!$])", r"\\\1", line)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of escaped cells; the first row is the header."""
    header, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, f"|{'---|' * len(rows[0])}", *lines])


def text_table(rows: Sequence[Sequence[str]], *, right: bool = True) -> str:
    """A table with aligned columns for the terminal.

    Args:
        rows: Cells; all rows have the same length.
        right: Right-align all columns except the first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        for cell, width in zip(rest, widths[1:], strict=True):
            cells.append(cell.rjust(width) if right else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
