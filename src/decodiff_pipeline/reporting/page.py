"""Self-contained HTML pages: the Jinja environment of all reports."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.reporting.formatting import number, percent, signed, significant

if TYPE_CHECKING:
    import jinja2
    import markupsafe

HASH = re.compile("[0-9a-f]{32,}")
SHORT = 12  # characters


def render_page(template: str, **content: Any) -> str:
    """Render a template of ``reporting/templates`` with all values escaped.

    Args:
        content: Variables of the template.

    Raises:
        jinja2.UndefinedError: The template uses another variable.
    """
    return environment().get_template(template).render(**content)


def render_macro(template: str, macro: str, *values: Any) -> markupsafe.Markup:
    """Render one macro of a template with all values escaped."""
    rendered: markupsafe.Markup = getattr(environment().get_template(template).module, macro)(
        *values
    )
    return rendered


def short(value: str) -> str:
    """A hash as its first 12 characters with the full hash as tooltip; other text unchanged."""
    import markupsafe

    if HASH.fullmatch(value) is None:
        return value
    return markupsafe.Markup('<code title="{0}">{1}…</code>').format(value, value[:SHORT])


@cache
def environment() -> jinja2.Environment:
    """Jinja environment with the filters of `formatting`, ``short`` and ``setting``."""
    import jinja2

    jinja = jinja2.Environment(
        loader=jinja2.PackageLoader("decodiff_pipeline.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "significant": significant,
        "short": short,
        "setting": lambda value: significant(value, 4) if isinstance(value, float) else str(value),
    }
    return jinja
