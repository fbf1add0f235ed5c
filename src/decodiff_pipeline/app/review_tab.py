"""The tab Review: one served image after the other, judged with a key or a click."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import ImageOps

from decodiff_pipeline.app import inspection, review
from decodiff_pipeline.app.messages import told
from decodiff_pipeline.deco.config import AUTO, UNKNOWN
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from decodiff_pipeline.app.context import Context

ORDERS = ("nearest to the threshold", "unusual in the monitoring")
DRAWN_SIDE = 480  # pixels of the picture that is drawn on
RED = "#e00000"


class ReviewTab:
    """Draws the tab within a page, and answers its events."""

    def __init__(self, context: Context, tab: gr.Tab) -> None:
        self._context = context
        if context.project.request_log is None:
            gr.Markdown(
                "Start the server with `DECODIFF_REQUEST_LOG=FOLDER` and "
                "`DECODIFF_LOG_IMAGES=all`, and this page with `--request-log FOLDER`."
            )
            return
        self._reviews = review.Reviews(context.project.request_log)
        current = gr.State(None, time_to_live=3600)
        order = gr.Radio(ORDERS, value=ORDERS[0], label="First", elem_id="order")
        about = gr.HTML(elem_id="about")
        with gr.Row():
            with gr.Column(min_width=300):
                view = gr.HTML(elem_id="review-view")
            with gr.Column(min_width=300):
                drawing = gr.ImageEditor(
                    label="Draw over the defect", sources=(), transforms=(), layers=False,
                    brush=gr.Brush(20, [RED], RED, "fixed"), format="png", elem_id="drawing",
                    height=560, buttons=[], canvas_size=(DRAWN_SIDE, DRAWN_SIDE),
                )  # fmt: skip
        with gr.Row():
            category = gr.Dropdown(list(context.categories()), label="Category")
            kind = gr.Textbox(label="Type of defect, if it has one", max_length=60)
        with gr.Row():
            buttons = {
                review.GOOD: gr.Button("Good (G)", elem_id="good", min_width=100),
                review.DEFECTIVE: gr.Button("Defective (D)", elem_id="defective", min_width=100),
                review.SKIP: gr.Button("Skip (S)", elem_id="skip", min_width=100),
            }
            undo = gr.Button("Undo (U)", elem_id="undo", min_width=100)
        add = gr.Button("Add what was reviewed to the data set", variant="primary", elem_id="add")
        shown = [current, about, view, drawing, category]
        own = {"concurrency_id": "model", "api_visibility": "private"}
        given = [order, current, category, kind, drawing]
        for verdict, button in buttons.items():
            button.click(told(self._judging(verdict)), given, shown, **own)
        undo.click(told(self._undo), order, shown, **own)
        add.click(told(self._add), order, shown, **own)
        gr.on([order.input, tab.select], told(self._next), order, shown, **own)

    def _judging(self, verdict: str) -> Any:
        def judge(
            order: str,
            current: review.Served | None,
            category: str | None,
            kind: str,
            drawing: dict[str, Any] | None,
            request: gr.Request,
        ) -> tuple[Any, ...]:
            if current is None:
                raise DataError("there is no image to judge")
            if not category and verdict != review.SKIP:
                raise DataError("choose the category of the image first")
            given = review.verdict_of(
                current, verdict, self._context.person(request), str(category), kind
            )
            image = self._opened(current, str(category))[1]
            mask = review.drawn_mask((drawing or {}).get("layers") or (), image.size)
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
            return None, f"<p>{state}</p>", "<p>Nothing is left to review.</p>", None, None
        inspected, image = self._opened(one, one.category)
        picture = np.asarray(ImageOps.contain(image.convert("RGB"), (DRAWN_SIDE, DRAWN_SIDE)))
        view = inspected.error and f"<p>{escape(inspected.error)}</p>"
        if inspected.answer is not None:
            view = inspection.layers(image, inspected.answer)
        known = None if one.category == UNKNOWN else one.category
        editor = {"background": picture, "layers": [], "composite": None}
        return one, f"<p>{_facts(one)}<br>{state}</p>", view, editor, known

    def _opened(self, one: review.Served, category: str) -> tuple[inspection.Inspected, Any]:
        """An image as the served version sees it now, and its pixels."""
        scorer = self._context.versions.served().scorer
        try:
            data = (self._reviews.log / one.path).read_bytes()
        except OSError as error:
            raise DataError(f"{one.path} is gone ({error.strerror}); skip it") from error
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
