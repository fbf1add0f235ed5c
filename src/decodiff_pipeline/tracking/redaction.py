"""Passwords, tokens and keys are not for MLflow, nor for a file that waits to be sent there."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
_NAME = re.compile(
    r"(password|passwd|[_-]pwd|passphrase|secret|token|credentials?|(api|access|private|secret)[_-]?key)$",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"([?&][\w-]*(?:password|secret|token|key|signature|sig)=)[^&\s\"']+", re.IGNORECASE
)
_USER = re.compile(r"//[^/\s]*@")  # the password may hold an @
SHORTEST_SECRET = 8  # a shorter value of a variable, such as "true", is a word like any other


def redact(text: str) -> str:
    """A text, such as a URI or an error, without what opens a door.

    That is users and passwords in URLs, tokens in their queries, and the values of environment
    variables that are called like a password, a token or a key.
    """
    for secret in sorted(_secrets_of_environment(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"//{HIDDEN}@", text))


def without_secrets(tree: Any, name: str = "") -> Any:
    """Nested values with every text redacted, and hidden where the key says what it is.

    Args:
        tree: Mappings, lists, and leaves of any kind.
        name: Key that ``tree`` stands under.
    """
    if isinstance(tree, dict):
        return {key: without_secrets(value, str(key)) for key, value in tree.items()}
    if _NAME.search(name) and tree not in (None, "") and not isinstance(tree, bool):
        return HIDDEN
    if isinstance(tree, list | tuple):
        return [without_secrets(value) for value in tree]
    return redact(tree) if isinstance(tree, str) else tree


def _secrets_of_environment() -> set[str]:
    values = {value for name, value in os.environ.items() if _NAME.search(name)}
    password = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password or ""
    values |= {password, unquote(password)}
    return {value for value in values if len(value) >= SHORTEST_SECRET}
