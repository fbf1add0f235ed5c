"""The tab Inspect: scores of uploaded images, and the effect of another threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app import inspection
from decodiff_pipeline.app.context import view_sliders
from decodiff_pipeline.app.messages import told
from decodiff_pipeline.app.thresholds import (
    DIGITS,
    count,
    rounded_up,
    save_override,
    slider_range,
)
from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.deco.config import AUTO, UNKNOWN
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.reporting import charts
from decodiff_pipeline.reporting.page import environment

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context

FITTED = "fitted"  # instead of a threshold: remove the override
NOTHING = "<p>No image is chosen.</p>"
DROP = (
    f'<div id="drop" data-most="{inspection.MAX_FILES}">Drop images or a folder on the page, up to '
    f"{inspection.MAX_FILES} images of {inspection.MAX_MEGABYTES} MB.</div>"
    '<p id="taken" role="status"></p>'
)
CAMERA = {"video": {"facingMode": "environment", "width": {"ideal": 4096}}}


class InspectTab:
    """Builds the tab in the current Gradio page and handles its events.

    Args:
        opened: Events that show the tab.
    """

    def __init__(self, context: Context, opened: list[Any]) -> None:
        self._context = context
        found = gr.State([], time_to_live=3600)
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
                    reset = gr.Button("Back to the fitted one", elem_id="reset")
            with gr.Column(min_width=300):
                counts = gr.HTML(elem_id="counts")
        shown = [view, details, limit, counts]
        after = [found, chosen, *shown]
        own = {"concurrency_id": "model", "api_visibility": "private"}
        files.upload(told(self._score), [files, category], after, **own)
        camera.input(told(self._score), [camera, category], after, **own)
        category.input(told(self._again), [found, chosen, category], after, **own)
        gr.on(opened, told(self._opened), [found, chosen, category], [category, *after], **own)
        chosen.input(told(self._show), [found, chosen], shown, **own)
        gr.on(
            [limit.input, limit.release], told(self._count), [found, chosen, limit], counts,
            show_progress="hidden", trigger_mode="always_last", **own,
        )  # fmt: skip
        for button, threshold in ((save, limit), (reset, gr.State(FITTED))):
            given = [found, chosen, category, threshold, reason]
            button.click(told(self._save), given, [*after, reason], **own)

    def _score(self, files: list[str] | str | None, category: str) -> tuple[Any, ...]:
        if files is None:  # the camera image was removed
            return gr.skip()
        if isinstance(files, str):
            return self._inspect([("camera", Path(files).read_bytes())], 0, category)
        paths = map(Path, files)
        return self._inspect([(one.name, one.read_bytes()) for one in paths], 0, category)

    def _again(
        self, found: list[inspection.Inspected], index: int | None, category: str
    ) -> tuple[Any, ...]:
        if not found:
            return gr.skip()
        return self._inspect([(one.name, one.data) for one in found], index, category)

    def _opened(
        self, found: list[inspection.Inspected], index: int | None, category: str
    ) -> tuple[Any, ...]:
        """Update the categories, and score again if another version is served now."""
        names = [AUTO, *self._context.categories()]
        category = category if category in names else AUTO
        stale = found and found[0].version != self._context.versions.number()
        after = self._again(found, index, category) if stale else [gr.skip()] * 6
        return gr.Dropdown(choices=names, value=category), *after

    def _inspect(
        self, files: list[tuple[str, bytes]], index: int | None, category: str
    ) -> tuple[Any, ...]:
        found = inspection.inspect(self._context.versions.served(), files, category)
        return found, self._listed(found, index), *self._show(found, index)

    def _listed(self, found: list[inspection.Inspected], index: int | None) -> Any:
        # The values are indices: names may repeat, and lines may change before an event arrives.
        choices = [(inspection.line(one), number) for number, one in enumerate(found)]
        return gr.Radio(choices=choices, value=index)

    def _show(self, found: list[inspection.Inspected], index: int | None) -> tuple[Any, ...]:
        """Image, boxes with the reconstruction, threshold slider, and counts at the threshold."""
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.category is None:
            text = f"<p>{inspection.escape(one.error)}</p>" if one else NOTHING
            return text, "", gr.skip(), ""
        version, answer = self._context.versions.load(one.version), one.answer
        pipeline = version.scorer.pipeline
        image = inspection.opened(one, pipeline)
        view = inspection.layers(image, answer, pipeline.regions.get(str(answer.category)))
        if answer.category == UNKNOWN:
            return view, f"<p>{inspection.escape(inspection.line(one))}</p>", gr.skip(), ""
        category = str(answer.category)
        corrected = inspection.reconstruction(image, category, pipeline)
        top, step = slider_range(version.scores, category, answer.score, answer.threshold)
        value = top if answer.threshold is None else rounded_up(answer.threshold)
        slider = gr.Slider(maximum=top, step=step, value=value, label=f"Threshold of {category}")
        details = [
            _verdict(one),
            inspection.box_table(answer),
            inspection.picture(corrected, "Reconstruction: the image as the model would have it"),
        ]
        return view, "".join(details), slider, self._count(found, index, value)

    def _count(
        self, found: list[inspection.Inspected], index: int | None, threshold: float | None
    ) -> str:
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.score is None or threshold is None:
            return ""
        version, category = self._context.versions.load(one.version), str(one.answer.category)
        same = [
            other.answer.score >= threshold for other in found
            if other.answer is not None and other.answer.score is not None
            and other.answer.category == category
        ]  # fmt: skip
        decision = decide(one.answer.score, threshold)
        counts = count(version.scores, category, threshold)
        text = _counted(counts, f"{sum(same)} of {len(same)}", str(decision))
        rows = version.scores[
            (version.scores["split"] == "test") & (version.scores["category"] == category)
        ]
        drawn = charts.draw_histogram(rows, threshold)
        if drawn is None:
            return text
        template = environment().get_template("charts.html.j2")
        return f"{text}{template.module.histogram(drawn, charts)}"  # type: ignore[attr-defined]

    def _save(
        self,
        found: list[inspection.Inspected],
        index: int | None,
        asked: str,
        limit: float | str | None,
        reason: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.score is None:
            raise DataError("choose an image of the category first")
        if not limit:  # an emptied box is 0
            raise DataError("the threshold is missing or 0: choose one above 0")
        threshold = None if isinstance(limit, str) else limit
        version, project = self._context.versions.served(), self._context.project
        if version.number != one.version:
            raise DataError(
                f"version {version.number} is served now; open this tab anew to score with it"
            )
        record = {
            "by": self._context.person(request),
            "reason": reason,
            "model_version": f"{project.model_name}/{version.number}",
            "model_sha256": version.sha256,
        }
        category = str(one.answer.category)
        save_override(project.overrides, project.audit_log, category, threshold, record)
        self._context.versions.forget()
        what = "the fitted threshold" if threshold is None else f"the threshold {threshold:.4f}"
        gr.Info(f"{category} has {what} from now on; a server takes it when it starts again")
        return *self._again(found, index, asked), ""


def _at(found: list[inspection.Inspected], index: int | None) -> inspection.Inspected | None:
    return found[index] if index is not None and index < len(found) else None


def _verdict(one: inspection.Inspected) -> str:
    answer = one.answer
    if answer is None or answer.score is None:
        return ""
    limit = "no threshold" if answer.threshold is None else f"{answer.threshold:.4f}"
    certainty = answer.category_certainty
    sure = "" if certainty is None else f" (recognised, certainty {certainty:.2f})"
    return (
        f'<p class="verdict {answer.decision}">{answer.decision or "no decision"}</p>'
        f"<p>{inspection.escape(str(answer.category))}{sure}: score {answer.score:.4f}, threshold "
        f"{limit} ({answer.threshold_from or 'none fitted'})</p>"
    )


def _counted(counts: dict[str, tuple[int, int]], uploaded: str, decision: str) -> str:
    rows = {"decision on this image": f"<b>{decision}</b>", "these images flagged": uploaded}
    for name, (part, of) in counts.items():
        rows[name] = f"{part} of {of} ({part / of:.1%})" if of else "no such images"
    cells = "".join(f"<tr><th>{name}<td>{value}</tr>" for name, value in rows.items())
    return f'<table class="facts">{cells}</table>'
