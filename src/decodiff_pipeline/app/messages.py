"""What the page says where something fails: one sentence, without the server's paths."""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SECONDS = 20  # that a message stays
# Of an absolute path, or of a local file's address; its name stays.
FOLDERS = re.compile(r"(?:\b(?:sqlite|file):/*|(?<![\w.:/~-])~?)/(?:[^\s/'\":,;]+/)+")


def without_paths(text: str) -> str:
    """A text without the folders of absolute paths and without passwords in addresses."""
    return FOLDERS.sub("", redact(text))


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler of the page whose errors become messages on it; its outputs stay as they are.

    An exception would lay "Error" over each of them, and over what was drawn.
    """

    @functools.wraps(function)
    def safe(*arguments: Any) -> Any:
        import gradio

        try:
            return function(*arguments)
        except DecodiffError as error:
            text = without_paths(str(error))
        except Exception:
            logger.exception("the page's %s failed", function.__name__)
            text = "the app failed; what it prints says why"
        gradio.Warning(text, duration=SECONDS, title="Not done")
        return gradio.skip()

    return safe
