"""Removes passwords, tokens, keys and folders from texts that are sent, stored or shown."""

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
_USER = re.compile(r"//[^/\s]*@")  # a password may contain an @
# Folders of an absolute path or of a local file's URL, up to the file name.
_FOLDERS = re.compile(r"(?:\b(?:sqlite|file):/*|(?<![\w.:/~-])~?)/(?:[^\s/'\":,;]+/)+")
SHORTEST_SECRET = 8  # characters; a shorter value, such as "true", occurs in ordinary text


def redact(text: str) -> str:
    """Replace secrets in a text, such as a URI or an error message, by ``***``.

    Secrets are users and passwords in URLs, tokens in their queries, and the values of environment
    variables named like a password, a token or a key.
    """
    for secret in sorted(_secrets_of_environment(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"//{HIDDEN}@", text))


def without_paths(text: str) -> str:
    """`redact` a text, and reduce absolute paths to file names."""
    return _FOLDERS.sub("", redact(text))


def without_secrets(tree: Any, name: str = "") -> Any:
    """Redact every text in nested values, and hide each value whose key names a secret.

    Args:
        name: Key of ``tree`` in its parent.
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
