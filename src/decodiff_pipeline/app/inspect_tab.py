"""The tab Inspect: scores of uploaded images, and the effect of another threshold."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app import inspection
from decodiff_pipeline.app.context import show_errors, view_sliders
from decodiff_pipeline.app.thresholds import (
    DIGITS,
    count_errors,
    round_up,
    save_override,
    slider_range,
)
from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.deco.config import AUTO, UNKNOWN
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.reporting import charts
from decodiff_pipeline.reporting.page import render_macro

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context

FITTED = "fitted"  # instead of a threshold: remove the override
NOTHING = "<p>No image is chosen.</p>"
DROP = (
    f'<div id="drop" data-most="{inspection.MAX_FILES}">Drop images or a folder on the page, up to '
    f"{inspection.MAX_FILES} images of {inspection.MAX_MEGABYTES} MB.</div>"
    '<p id="upload-message" role="status"></p>'
)
Results = list[inspection.InspectionResult]  # in the order of the list on the page
CAMERA = {"video": {"facingMode": "environment", "width": {"ideal": 4096}}}


class InspectTab:
    """Builds the tab in the current Gradio page and handles its events.

    Args:
        on_open: Events that show the tab.
    """

    def __init__(self, context: Context, on_open: list[Any]) -> None:
        self._context = context
        results = gr.State([], time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                gr.HTML(DROP)
                with gr.Row():
                    files = gr.UploadButton(
                        "Images", file_count="multiple", file_types=["image"], min_width=100
                    )
                    gr.Button("Folder", elem_id="folder", min_width=100)
                with gr.Accordion("Camera", open=False):
                    camera = gr.Image(
                        sources="webcam", type="filepath", image_mode=None, format="png",
                        show_label=False, elem_id="camera", buttons=[],
                        webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA),
                    )  # fmt: skip
                category = gr.Dropdown(
                    [AUTO, *context.categories()], value=AUTO, label="Category of the images"
                )
                chosen = gr.Radio([], label="Images", elem_id="images")
            with gr.Column(scale=2, min_width=300):
                view = gr.HTML(NOTHING, elem_id="view")
                view_sliders("view")
                details = gr.HTML(elem_id="details")
        with gr.Accordion("Threshold", open=True), gr.Row():
            with gr.Column(min_width=300):
                limit = gr.Slider(
                    0, 1, 0.5, step=0.002, precision=DIGITS, label="Threshold", elem_id="threshold"
                )
                reason = gr.Textbox(label="Reason", max_length=500, elem_id="reason")
                with gr.Row():
                    save = gr.Button("Save as override", elem_id="save")
                    reset = gr.Button("Reset to the fitted threshold", elem_id="reset")
            with gr.Column(min_width=300):
                counts = gr.HTML(elem_id="counts")
        shown = [view, details, limit, counts]
        after = [results, chosen, *shown]
        own = {"concurrency_id": "model", "api_visibility": "private"}
        files.upload(show_errors(self._score), [files, category], after, **own)
        camera.input(show_errors(self._score), [camera, category], after, **own)
        category.input(show_errors(self._rescore), [results, chosen, category], after, **own)
        given = [results, chosen, category]
        gr.on(on_open, show_errors(self._on_open), given, [category, *after], **own)
        chosen.input(show_errors(self._show), [results, chosen], shown, **own)
        gr.on(
            [limit.input, limit.release], show_errors(self._count), [results, chosen, limit],
            counts, show_progress="hidden", trigger_mode="always_last", **own,
        )  # fmt: skip
        for button, threshold in ((save, limit), (reset, gr.State(FITTED))):
            inputs = [*given, threshold, reason]
            button.click(show_errors(self._save), inputs, [*after, reason], **own)

    def _score(self, files: list[str] | str | None, category: str) -> tuple[Any, ...]:
        if files is None:  # the camera image was removed
            return gr.skip()
        if isinstance(files, str):
            return self._inspect([("camera", Path(files).read_bytes())], 0, category)
        paths = map(Path, files)
        return self._inspect([(path.name, path.read_bytes()) for path in paths], 0, category)

    def _rescore(self, results: Results, index: int | None, category: str) -> tuple[Any, ...]:
        if not results:
            return gr.skip()
        return self._inspect([(result.name, result.data) for result in results], index, category)

    def _on_open(self, results: Results, index: int | None, category: str) -> tuple[Any, ...]:
        """Update the categories, and score again if another version is served now."""
        names = [AUTO, *self._context.categories()]
        category = category if category in names else AUTO
        stale = results and results[0].version != self._context.versions.served_number()
        after = self._rescore(results, index, category) if stale else [gr.skip()] * 6
        return gr.Dropdown(choices=names, value=category), *after

    def _inspect(
        self, files: list[tuple[str, bytes]], index: int | None, category: str
    ) -> tuple[Any, ...]:
        results = inspection.inspect(self._context.versions.served(), files, category)
        return results, self._list(results, index), *self._show(results, index)

    def _list(self, results: Results, index: int | None) -> Any:
        # The values are indices: names may repeat, and lines may change before an event arrives.
        choices = [(inspection.summarise(result), number) for number, result in enumerate(results)]
        return gr.Radio(choices=choices, value=index)

    def _show(self, results: Results, index: int | None) -> tuple[Any, ...]:
        """Image, boxes with the reconstruction, threshold slider, and counts at the threshold."""
        result = _selected(results, index)
        if result is None or result.answer is None:
            text = f"<p>{escape(result.error)}</p>" if result else NOTHING
            return text, "", gr.skip(), ""
        version, answer = self._context.versions.load(result.version), result.answer
        pipeline = version.scorer.pipeline
        image = inspection.decode_image(result, pipeline)
        view = inspection.render_layers(image, answer, pipeline.regions.get(answer.category))
        if answer.category == UNKNOWN:
            return view, f"<p>{escape(inspection.summarise(result))}</p>", gr.skip(), ""
        category = answer.category
        corrected = inspection.reconstruction(image, category, pipeline)
        top, step = slider_range(version.scores, category, answer.score, answer.threshold)
        value = top if answer.threshold is None else round_up(answer.threshold)
        slider = gr.Slider(maximum=top, step=step, value=value, label=f"Threshold of {category}")
        details = inspection.render_details(answer, corrected)
        return view, details, slider, self._count(results, index, value)

    def _count(self, results: Results, index: int | None, threshold: float | None) -> str:
        result = _selected(results, index)
        answer = None if result is None else result.answer
        if result is None or answer is None or answer.score is None or threshold is None:
            return ""
        version, category = self._context.versions.load(result.version), answer.category
        answers = [other.answer for other in results if other.answer is not None]
        flagged = [
            other.score >= threshold
            for other in answers
            if other.score is not None and other.category == category
        ]
        decision = decide(answer.score, threshold)
        counts = count_errors(version.scores, category, threshold)
        text = render_macro(inspection.TEMPLATE, "decisions", decision, flagged, counts)
        rows = version.scores[
            (version.scores["split"] == "test") & (version.scores["category"] == category)
        ]
        drawn = charts.draw_histogram(rows, threshold)
        if drawn is None:
            return text
        return text + render_macro("charts.html.j2", "histogram", drawn, charts)

    def _save(
        self,
        results: Results,
        index: int | None,
        asked: str,
        limit: float | str | None,
        reason: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        result = _selected(results, index)
        if result is None or result.answer is None or result.answer.score is None:
            raise DataError("choose an image of the category first")
        if not limit:  # an emptied box is 0
            raise DataError("the threshold is missing or 0: choose one above 0")
        threshold = None if isinstance(limit, str) else limit
        version, project = self._context.versions.served(), self._context.project
        if version.number != result.version:
            raise DataError(
                f"version {version.number} is served now; open this tab again to score with it"
            )
        record = {
            "by": self._context.user_name(request),
            "reason": reason,
            "model_version": f"{project.model_name}/{version.number}",
            "model_sha256": version.sha256,
        }
        category = result.answer.category
        save_override(project.overrides, project.audit_log, category, threshold, record)
        self._context.versions.clear()
        what = "the fitted threshold" if threshold is None else f"the threshold {threshold:.4f}"
        gr.Info(f"{category} now has {what}; a server uses it after a restart")
        return *self._rescore(results, index, asked), ""


def _selected(results: Results, index: int | None) -> inspection.InspectionResult | None:
    return results[index] if index is not None and index < len(results) else None
