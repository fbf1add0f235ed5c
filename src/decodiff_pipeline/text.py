"""Text in the configuration: names, paths, categories, reasons."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def as_text(value: Any) -> Any:
    """A scalar as it was typed; other values as they are.

    `yaml_reader.plain_value` makes a number or a truth value only of what is spelled as `str`
    spells it, so the way back is certain.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return value


Text = Annotated[str, BeforeValidator(as_text)]
