"""What the tabs of the page share: the project, sliders, and how errors are shown."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.registry.audit import actor
from decodiff_pipeline.registry.versions import CHAMPION
from decodiff_pipeline.tracking.redaction import without_paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.app.jobs import Jobs
    from decodiff_pipeline.app.project import AppProject
    from decodiff_pipeline.app.served_versions import ServedVersions

logger = logging.getLogger(__name__)

SECONDS = 20  # that a message is shown
SET = "(value) => document.getElementById('{}').style.setProperty('--{}', value)"


@dataclass(frozen=True)
class Context:
    """The project, its model versions and its running command."""

    project: AppProject
    versions: ServedVersions
    jobs: Jobs

    def categories(self) -> list[str]:
        """Categories of the served version."""
        return list(self.versions.served().scorer.pipeline.categories)

    def heading(self) -> str:
        """HTML: name of the model, and number and role of the served version."""
        number = self.versions.served_number()
        is_champion = self.versions.registry.aliases().get(CHAMPION) == number
        role = "champion" if is_champion else "newest version"
        return f"<h1>{escape(self.project.model_name)} <small>version {number}, {role}</small></h1>"

    def user_name(self, request: gr.Request) -> str:
        """Name of the user: of the login, else of the operating system."""
        return request.username or actor()["user"] or "unknown"


def view_sliders(picture: str) -> None:
    """Add sliders for the zoom and for the opacity of the heat map.

    Args:
        picture: Id of the HTML element that they control.
    """
    with gr.Row():
        heat = gr.Slider(0, 1, 0.8, step=0.05, label="Heat map", elem_id=f"{picture}-heat")
        zoom = gr.Slider(1, 6, 1, step=0.5, label="Zoom", elem_id=f"{picture}-zoom")
    for name, slider in (("heat", heat), ("zoom", zoom)):
        slider.input(None, slider, None, js=SET.format(picture, name), api_visibility="private")


def show_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an event handler: an exception is shown as a message, the outputs do not change.

    Without this, Gradio covers each output, including a drawing, with "Error".
    """

    @functools.wraps(handler)
    def safe(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except DecodiffError as error:
            text = without_paths(str(error))
        except Exception:
            logger.exception("the page's %s failed", handler.__name__)
            text = "the app failed; its output contains the error"
        gr.Warning(text, duration=SECONDS, title="Not done")
        return gr.skip()

    return safe
