"""Error messages of the page: one sentence, without folders of the server."""

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

SECONDS = 20  # that a message is shown
# Folders of an absolute path or of a local file's URL, up to the file name.
FOLDERS = re.compile(r"(?:\b(?:sqlite|file):/*|(?<![\w.:/~-])~?)/(?:[^\s/'\":,;]+/)+")


def without_paths(text: str) -> str:
    """Remove the folders of absolute paths and the passwords in URLs."""
    return FOLDERS.sub("", redact(text))


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an event handler: an exception is shown as a message and leaves the outputs as is.

    Without this, Gradio covers each output, including a drawing, with "Error".
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
