"""Numbers and tables as text: the one writer of each, for pages, Markdown and terminals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME = 80
MAX_ITEMS = 20


def number(value: float | None) -> str:
    """Three decimals, or a dash for nothing."""
    return "-" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with a sign, or a dash for nothing."""
    # A minus as wide as the plus.
    return "-" if value is None else f"{value:+.3f}".replace("-", "−")  # noqa: RUF001


def percent(value: float | None) -> str:
    """One decimal and a percent sign, or a dash for nothing."""
    return "-" if value is None else f"{100 * value:.1f} %"


def significant(value: float | None, digits: int = 3) -> str:
    """So many significant digits, or a dash for nothing."""
    return "-" if value is None else f"{value:.{digits}g}"


def listed(items: Sequence[str]) -> str:
    """The first items in a row, and how many more there are."""
    more = len(items) - MAX_ITEMS
    return ", ".join(items[:MAX_ITEMS]) + (f" and {more} more" if more > 0 else "")


def escaped(text: object, longest: int = MAX_NAME) -> str:
    """Any text as one line that Markdown and HTML show as it is, cut to so many characters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("@", "&#64;")  # names nobody on GitHub
    return re.sub(r"([\\`*_{}\[\]()#|~!$])", r"\\\1", line)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head, and cells are escaped already."""
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *lines])


def text_table(rows: Sequence[Sequence[str]], *, right: bool = True) -> str:
    """A table of aligned columns for a terminal.

    Args:
        rows: Cells, the same number in each row.
        right: Whether all columns but the first are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        for cell, width in zip(rest, widths[1:], strict=True):
            cells.append(cell.rjust(width) if right else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
