"""The tab Runs: versions and their gates, comparison, promotion, rollback, retraining."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app.comparison import render_comparison
from decodiff_pipeline.app.context import show_errors, view_sliders
from decodiff_pipeline.app.inspection import TEMPLATE
from decodiff_pipeline.app.thresholds import require_reason
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.registry.versions import CHAMPION
from decodiff_pipeline.reporting.page import render_macro

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context

SECONDS = 2  # between two updates of the state of a command


class RunsTab:
    """Builds the tab in the current Gradio page and handles its events."""

    def __init__(self, context: Context, on_open: Any, heading: gr.HTML) -> None:
        self._context = context
        table = gr.HTML(elem_id="versions")
        with gr.Row():
            first = gr.Dropdown([], label="Version", elem_id="first")
            second = gr.Dropdown([], label="Compare with", elem_id="second")
            compare = gr.Button("Compare", elem_id="compare")
        pairs = gr.HTML(elem_id="pairs")
        view_sliders("pairs")
        with gr.Row():
            with gr.Column(min_width=300):
                version = gr.Dropdown([], label="Version to promote", elem_id="version")
                override = gr.Checkbox(label="Promote although gates fail, for this reason")
                reason = gr.Textbox(label="Reason", max_length=500, elem_id="why")
                with gr.Row():
                    promote = gr.Button("Promote", elem_id="promote", min_width=100)
                    back = gr.Button("Roll back", elem_id="roll-back", min_width=100)
                    retrain = gr.Button("Retrain", elem_id="retrain", min_width=100)
                    stop = gr.Button("Stop", elem_id="stop", min_width=100)
            with gr.Column(min_width=300):
                state = gr.HTML("<p>no command was started</p>", elem_id="state")
                log = gr.Textbox(
                    label="Output", lines=12, max_lines=12, autoscroll=True, elem_id="log"
                )
        timer = gr.Timer(SECONDS, active=False)
        listed, job = [heading, table, first, second, version], [state, log, timer]
        own: dict[str, Any] = {"api_visibility": "private"}
        for event, then in (
            (on_open, self._show_versions),
            (timer.tick, self._show_versions_after_job),
        ):
            shown = event(show_errors(self._show_job), None, job, show_progress="hidden", **own)
            shown.then(show_errors(then), None, listed, show_progress="hidden", **own)
        compare.click(
            show_errors(self._compare), [first, second], pairs, concurrency_id="model", **own
        )
        promote.click(show_errors(self._promote), [version, override, reason], job, **own)
        back.click(show_errors(self._roll_back), reason, job, **own)
        retrain.click(show_errors(self._retrain), None, job, **own)
        stop.click(show_errors(self._stop), None, job, **own)

    def _show_versions(self) -> tuple[Any, ...]:
        rows = self._context.versions.list_versions()
        choices = [
            (f"{row['version']} {', '.join(row['aliases'])}", row["version"]) for row in rows
        ]
        champion = self._context.versions.registry.aliases().get(CHAMPION)
        newest = rows[0]["version"]
        others = [row["version"] for row in rows if row["version"] != newest]
        other = champion if champion not in (None, newest) else (others or [newest])[0]
        return (
            self._context.heading(),
            render_macro(TEMPLATE, "versions", rows, _user),
            gr.Dropdown(choices=choices, value=newest),
            gr.Dropdown(choices=choices, value=other),
            gr.Dropdown(choices=choices, value=newest),
        )

    def _compare(self, first: str, second: str) -> str:
        if first == second:
            raise ConfigurationError("choose two different versions")
        versions = self._context.versions
        return render_comparison(
            versions.load(first), versions.load(second), self._context.project.raw
        )

    def _promote(
        self, version: str, override: bool, reason: str, request: gr.Request
    ) -> tuple[Any, ...]:
        parameters = {"challenger": version}
        if override:
            parameters["override_reason"] = require_reason(reason)
        user = self._context.user_name(request)
        self._context.jobs.pipeline("promotion", {"promotion": parameters}, user)
        return self._show_job()

    def _roll_back(self, reason: str, request: gr.Request) -> tuple[Any, ...]:
        given = {"rollback": {"reason": require_reason(reason)}}
        self._context.jobs.pipeline("rollback", given, self._context.user_name(request))
        return self._show_job()

    def _retrain(self, request: gr.Request) -> tuple[Any, ...]:
        self._context.jobs.retrain(self._context.user_name(request))
        return self._show_job()

    def _stop(self) -> tuple[Any, ...]:
        self._context.jobs.stop()
        return self._show_job()

    def _show_job(self) -> tuple[Any, ...]:
        jobs = self._context.jobs
        return f"<p>{escape(jobs.state)}</p>", jobs.tail(), gr.Timer(active=jobs.running)

    def _show_versions_after_job(self) -> tuple[Any, ...]:
        """Update the versions, unless a command is running."""
        return (gr.skip(),) * 5 if self._context.jobs.running else self._show_versions()


def _user(tag: str | None) -> str:
    return str(json.loads(tag).get("user", "")) if tag else ""
