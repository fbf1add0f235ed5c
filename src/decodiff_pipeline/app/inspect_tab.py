"""The tab Inspect: what the model says of images, and what another threshold would say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app import inspection
from decodiff_pipeline.app.messages import told
from decodiff_pipeline.app.thresholds import (
    DIGITS,
    count,
    rounded_up,
    save_override,
    slider_range,
)
from decodiff_pipeline.deco.config import AUTO, UNKNOWN
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.reporting import charts
from decodiff_pipeline.reporting.page import environment

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context
    from decodiff_pipeline.app.thresholds import Counts

BLEND = "(share) => document.documentElement.style.setProperty('--heat', share)"
ZOOM = "(times) => document.documentElement.style.setProperty('--zoom', times)"
NOTHING = "<p>No image is chosen.</p>"


class InspectTab:
    """Draws the tab within a page, and answers its events."""

    def __init__(self, context: Context) -> None:
        self._context = context
        found = gr.State([], time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label=f"Images, up to {inspection.MAX_FILES}", file_count="multiple",
                    file_types=["image"], height=150, elem_id="files",
                )  # fmt: skip
                category = gr.Dropdown(
                    [AUTO, *context.categories()], value=AUTO, label="Category of the images"
                )
                score = gr.Button("Score", variant="primary", elem_id="score")
                chosen = gr.Radio([], type="index", label="Images", elem_id="images")
            with gr.Column(scale=2, min_width=300):
                view = gr.HTML(NOTHING, elem_id="view")
                with gr.Row():
                    heat = gr.Slider(0, 1, 0.8, step=0.05, label="Heat map", elem_id="heat")
                    zoom = gr.Slider(1, 6, 1, step=0.5, label="Zoom", elem_id="zoom")
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
        own = {"concurrency_id": "model", "api_visibility": "private"}
        gr.on(
            [score.click, files.upload], told(self._score), [files, category],
            [found, chosen, *shown], **own,
        )  # fmt: skip
        chosen.input(told(self._show), [found, chosen], shown, **own)
        limit.release(told(self._count), [found, chosen, limit], counts, **own)
        limit.input(told(self._count), [found, chosen, limit], counts, show_progress="hidden",
                    trigger_mode="always_last", **own)  # fmt: skip
        heat.input(None, heat, None, js=BLEND, api_visibility="private")
        zoom.input(None, zoom, None, js=ZOOM, api_visibility="private")
        after = [found, chosen, *shown, reason]
        save.click(told(self._save), [found, chosen, limit, reason], after, **own)
        reset.click(told(self._reset), [found, chosen, reason], after, **own)

    def _score(self, files: list[str] | None, category: str) -> tuple[Any, ...]:
        version = self._context.versions.served()
        found = inspection.inspect(version.scorer, [Path(one) for one in files or ()], category)
        return found, self._listed(found, 0), *self._show(found, 0)

    def _listed(self, found: list[inspection.Inspected], index: int | None) -> Any:
        # A radio sends its label: names may repeat, so a number tells them apart.
        lines = [f"{i}. {inspection.line(one)}" for i, one in enumerate(found, start=1)]
        value = lines[index] if found and index is not None else None
        return gr.Radio(choices=lines, value=value)

    def _show(self, found: list[inspection.Inspected], index: int | None) -> tuple[Any, ...]:
        """The picture, the boxes with the reconstruction, the slider and its counts."""
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.category is None:
            text = f"<p>{inspection.escape(one.error)}</p>" if one else NOTHING
            return text, "", gr.skip(), ""
        version, answer = self._context.versions.served(), one.answer
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

    def _count(self, found: list[inspection.Inspected], index: int | None, threshold: float) -> str:
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.score is None:
            return ""
        version, category = self._context.versions.served(), str(one.answer.category)
        same = [
            other.at(threshold).answer for other in found
            if other.answer is not None and other.answer.category == category
        ]  # fmt: skip
        flagged = sum(answer is not None and answer.decision == "defective" for answer in same)
        counts = count(version.scores, category, threshold)
        decided = one.at(threshold).answer
        text = _counted(counts, f"{flagged} of {len(same)}", str(decided and decided.decision))
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
        threshold: float | None,
        reason: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        one = _at(found, index)
        if one is None or one.answer is None or one.answer.score is None:
            raise DataError("choose an image of the category first")
        version, project = self._context.versions.served(), self._context.project
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
        scorer = self._context.versions.served().scorer
        again = [
            inspection.inspect_one(scorer, other.name, other.data, str(other.answer.category))
            if other.answer is not None and other.answer.category == category else other
            for other in found
        ]  # fmt: skip
        return again, self._listed(again, index), *self._show(again, index), ""

    def _reset(
        self,
        found: list[inspection.Inspected],
        index: int | None,
        reason: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        return self._save(found, index, None, reason, request)


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


def _counted(counts: Counts, uploaded: str, decision: str) -> str:
    def share(part: int, of: int) -> str:
        return f"{part} of {of} ({part / of:.1%})" if of else "no such images"

    missed = counts.defective[1] - counts.defective[0]
    rows = (
        ("decision on this image", f"<b>{decision}</b>"),
        ("these images flagged", uploaded),
        ("false alarms on calibration images", share(*counts.calibration)),
        ("false alarms on good test images", share(*counts.good)),
        ("misses on defective test images", share(missed, counts.defective[1])),
    )
    cells = "".join(f"<tr><th>{name}<td>{value}</tr>" for name, value in rows)
    return f'<table class="facts">{cells}</table>'
