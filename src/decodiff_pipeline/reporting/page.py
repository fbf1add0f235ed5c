"""HTML pages that load nothing from elsewhere: the one Jinja environment of all reports."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.reporting.formatting import number, percent, signed, significant

if TYPE_CHECKING:
    import jinja2


def render_page(template: str, **content: Any) -> str:
    """Render a template of ``reporting/templates``, every value escaped.

    Args:
        template: Name of the file.
        content: What it names; a name that is missing is an error.
    """
    return environment().get_template(template).render(**content)


@cache
def environment() -> jinja2.Environment:
    """The environment, with the filters ``number``, ``signed``, ``percent``, ``significant``."""
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
        "setting": lambda value: significant(value, 4) if isinstance(value, float) else str(value),
    }
    return found
