"""HTML pages that load nothing from elsewhere: the one Jinja environment of all reports."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.reporting.formatting import number, percent, signed, significant

if TYPE_CHECKING:
    import jinja2

HASH = re.compile("[0-9a-f]{32,}")
SHORT = 12  # characters


def render_page(template: str, **content: Any) -> str:
    """Render a template of ``reporting/templates``, every value escaped.

    Args:
        content: What it names; a name that is missing is an error.
    """
    return environment().get_template(template).render(**content)


def short(value: str) -> str:
    """A hash as its first twelve characters, with the whole as a tooltip; other text as it is."""
    import markupsafe

    if HASH.fullmatch(value) is None:
        return value
    return markupsafe.Markup('<code title="{0}">{1}…</code>').format(value, value[:SHORT])


@cache
def environment() -> jinja2.Environment:
    """The environment with its filters: those of `formatting`, ``short`` and ``setting``."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("decodiff_pipeline.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "significant": significant,
        "short": short,
        "setting": lambda value: significant(value, 4) if isinstance(value, float) else str(value),
    }
    return found
