"""The tab Review: served images one after the other, judged with a key or a click."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app import inspection, review
from decodiff_pipeline.app.context import view_sliders
from decodiff_pipeline.app.messages import told
from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from decodiff_pipeline.app.context import Context

ORDERS = ("nearest to the threshold", "unusual in the monitoring")
EMPTY = "The request log has no image yet. The server keeps them with DECODIFF_LOG_IMAGES=all."
TOOLS = ("Rectangle (R)", "Brush (B)", "Move (M)")
# A verdict is sent with the displayed image, because the next one may be loading already.
JUDGED = "(order, _, category, kind) => [order, judged(), category, kind]"


class ReviewTab:
    """Builds the tab in the current Gradio page and handles its events.

    Args:
        opened: The event that shows the tab.
    """

    def __init__(self, context: Context, opened: Any) -> None:
        self._context = context
        if context.project.request_log is None:
            gr.Markdown(
                "Start the server with `DECODIFF_REQUEST_LOG=FOLDER` and "
                "`DECODIFF_LOG_IMAGES=all`, and this page with `--request-log FOLDER`."
            )
            return
        self._reviews = review.Reviews(context.project.request_log)
        order = gr.Radio(ORDERS, value=ORDERS[0], label="First", elem_id="order")
        drawing = gr.Textbox(visible=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                view = gr.HTML(elem_id="review-view")
                view_sliders("review-view")
            with gr.Column(scale=1, min_width=300):
                gr.Radio(
                    TOOLS, value=TOOLS[0], label="Mark the defect", elem_id="tool", interactive=True
                )
                with gr.Row():
                    gr.Button("Take the model's boxes (X)", elem_id="boxes", min_width=100)
                    gr.Button("Remove the last mark (C)", elem_id="erase", min_width=100)
                category = gr.Dropdown(context.categories(), label="Category")
                kind = gr.Textbox(label="Type of defect, if it has one", max_length=60)
                with gr.Row():
                    buttons = {
                        name: gr.Button(f"{name.title()} ({name[0].upper()})", elem_id=name,
                                        min_width=100)
                        for name in (review.GOOD, review.DEFECTIVE, review.SKIP)
                    }  # fmt: skip
                    undo = gr.Button("Undo (U)", elem_id="undo", min_width=100)
                add = gr.Button("Add what was reviewed to the data set", variant="primary",
                                elem_id="add")  # fmt: skip
        shown = [view, category]
        own = {"concurrency_id": "model", "api_visibility": "private"}
        given = [order, drawing, category, kind]
        for verdict, button in buttons.items():
            button.click(told(self._judging(verdict)), given, shown, js=JUDGED, **own)
        undo.click(told(self._undo), order, shown, **own)
        add.click(told(self._add), order, shown, **own)
        gr.on([order.input, opened], told(self._next), order, shown, **own)

    def _judging(self, verdict: str) -> Any:
        def judge(
            order: str, drawing: str, category: str | None, kind: str, request: gr.Request
        ) -> tuple[Any, ...]:
            sha256, shapes = review.parse_drawing(drawing)
            one = next((one for one in self._waiting(order) if one.sha256 == sha256), None)
            if one is None:  # judged in another tab or by another person
                gr.Warning("The image was judged meanwhile.", title="Not done")
                return self._next(order)
            if not category and verdict != review.SKIP:
                raise DataError("choose the category of the image first")
            person = self._context.person(request)
            given = review.verdict_of(one, verdict, person, str(category), kind)
            mask = None
            if verdict == review.DEFECTIVE:
                mask = review.drawn_mask(shapes, self._opened(one, str(category))[1].size)
            self._reviews.give(given, mask, self._context.project)
            return self._next(order)

        return judge

    def _undo(self, order: str, request: gr.Request) -> tuple[Any, ...]:
        taken = self._reviews.undo(self._context.person(request))
        images = self._waiting(order)
        again = next((one for one in images if one.sha256 == taken.sha256), None)
        return self._shown(again or (images[0] if images else None), len(images))

    def _add(self, order: str, request: gr.Request) -> tuple[Any, ...]:
        count = self._reviews.add(self._context.person(request), self._context.project)
        gr.Info(f"{count} images are in the data set; a retraining uses them")
        return self._next(order)

    def _next(self, order: str) -> tuple[Any, ...]:
        images = self._waiting(order)
        return self._shown(images[0] if images else None, len(images))

    def _waiting(self, order: str) -> list[review.Served]:
        unusual = review.unusual_images(self._context.project.monitoring)
        done = self._reviews.done()
        found = review.served_images(self._reviews.log, unusual)
        left = [one for one in found if one.sha256 not in done]
        return review.in_order(left, unusual_first=order == ORDERS[1])

    def _shown(self, one: review.Served | None, count: int) -> tuple[Any, ...]:
        verdicts = [given.verdict for given in self._reviews.pending().values()]
        ready = sum(verdict != review.SKIP for verdict in verdicts)
        state = f"{count} to review, {ready} reviewed and not yet in the data set"
        if one is None:
            text = "Nothing is left to review." if self._reviews.done() else EMPTY
            return f'<p id="about">{state}</p><p>{text}</p>', None
        try:
            inspected, image = self._opened(one, one.category)
            view, said = inspection.layers(image, inspected.answer), inspected.error
        except ImageError as error:
            view, said = "", f"{error} Skip it."
        text = (
            f'<p id="about">{_facts(one)}<br>{state}</p><p>{escape(said)}</p>'
            f'<div id="judged" data-image="{escape(one.sha256)}">{view}</div>'
        )
        categories = self._context.categories()
        known = one.category if one.category in categories else None
        return text, gr.Dropdown(choices=categories, value=known)

    def _opened(
        self, one: review.Served, category: str
    ) -> tuple[inspection.Inspected, Image.Image]:
        """Score an image with the served version, and decode it."""
        scorer = self._context.versions.served().scorer
        try:
            data = (self._reviews.log / one.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{one.path} is gone ({error.strerror}).") from error
        known = category if category in scorer.pipeline.categories else AUTO
        inspected = inspection.inspect_one(scorer, one.path, data, known)
        return inspected, inspection.opened(inspected, scorer.pipeline)


def _facts(one: review.Served) -> str:
    if one.score is None or one.threshold is None:
        told_then = one.decision or "no threshold"
    else:
        told_then = f"{one.decision}, score {one.score:.4f}, threshold {one.threshold:.4f}"
    unusual = f"; {one.unusual:.1f} deviations from the reference" if one.unusual else ""
    return f"{escape(one.category)}: {escape(told_then)}{unusual}, served {escape(one.time[:16])}"
