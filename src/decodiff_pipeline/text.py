"""A pydantic type for text in the configuration, such as names, paths and categories."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def as_text(value: Any) -> Any:
    """Convert a number or boolean back to the text in the file; other values are unchanged.

    The conversion is exact: `yaml_reader.plain_value` parses a number or boolean only if `str`
    gives the same text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return value


Text = Annotated[str, BeforeValidator(as_text)]
