"""The page: its tabs, styles and keys."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from decodiff_pipeline.app.inspect_tab import InspectTab
from decodiff_pipeline.app.messages import told
from decodiff_pipeline.app.review_tab import ReviewTab
from decodiff_pipeline.app.runs_tab import RunsTab
from decodiff_pipeline.registry.versions import CHAMPION

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context

HOUR = 3600


def build(context: Context) -> gr.Blocks:
    """The page with its tabs."""
    title = f"{context.project.model_name}: inspect"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        heading = gr.HTML(_heading(context), elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Inspect", id="inspect"):
                InspectTab(context)
            with gr.Tab("Review", id="review") as review:
                ReviewTab(context, review)
            with gr.Tab("Runs", id="runs") as runs:
                RunsTab(context, runs)
        page.load(told(lambda: _heading(context)), None, heading, api_visibility="private")
    return page


def _heading(context: Context) -> str:
    number = context.versions.served().number
    role = "champion" if context.versions.aliases().get(CHAMPION) == number else "newest version"
    return f"<h1>{escape(context.project.model_name)} <small>version {number}, {role}</small></h1>"
