"""The tab Review: served images one after the other, reviewed with a key or a click."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from decodiff_pipeline.app import inspection, review
from decodiff_pipeline.app.context import show_errors, view_sliders
from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from decodiff_pipeline.app.context import Context

ORDERS = ("nearest to the threshold", "unusual in the monitoring")
EMPTY = "The request log has no image yet. The server keeps them with DECODIFF_LOG_IMAGES=all."
TOOLS = ("Rectangle (R)", "Brush (B)", "Move (M)")
# A verdict is sent with the displayed image, because the next one may be loading already.
SEND_DRAWING = "(order, _, category, kind) => [order, currentDrawing(), category, kind]"


class ReviewTab:
    """Builds the tab in the current Gradio page and handles its events.

    Args:
        on_open: The event that shows the tab.
    """

    def __init__(self, context: Context, on_open: Any) -> None:
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
                    gr.Button("Use the model's boxes (X)", elem_id="boxes", min_width=100)
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
            button.click(
                show_errors(self._verdict_handler(verdict)), given, shown, js=SEND_DRAWING, **own
            )
        undo.click(show_errors(self._undo), order, shown, **own)
        add.click(show_errors(self._add), order, shown, **own)
        gr.on([order.input, on_open], show_errors(self._show_next), order, shown, **own)

    def _verdict_handler(self, verdict: str) -> Any:
        def judge(
            order: str, drawing: str, category: str | None, kind: str, request: gr.Request
        ) -> tuple[Any, ...]:
            sha256, shapes = review.parse_drawing(drawing)
            served = next(
                (image for image in self._unreviewed(order) if image.sha256 == sha256), None
            )
            if served is None:  # reviewed in another tab or by another user
                gr.Warning("Another user has reviewed the image in the meantime.", title="Not done")
                return self._show_next(order)
            if not category and verdict != review.SKIP:
                raise DataError("choose the category of the image first")
            user = self._context.user_name(request)
            given = review.make_verdict(served, verdict, user, str(category), kind)
            mask = None
            if verdict == review.DEFECTIVE:
                mask = review.rasterise(shapes, self._score(served, str(category))[1].size)
            self._reviews.record(given, mask, self._context.project)
            return self._show_next(order)

        return judge

    def _undo(self, order: str, request: gr.Request) -> tuple[Any, ...]:
        undone = self._reviews.undo(self._context.user_name(request))
        images = self._unreviewed(order)
        again = next((image for image in images if image.sha256 == undone.sha256), None)
        return self._render(again or (images[0] if images else None), len(images))

    def _add(self, order: str, request: gr.Request) -> tuple[Any, ...]:
        count = self._reviews.add(self._context.user_name(request), self._context.project)
        gr.Info(f"{count} images are in the data set; a retraining uses them")
        return self._show_next(order)

    def _show_next(self, order: str) -> tuple[Any, ...]:
        images = self._unreviewed(order)
        return self._render(images[0] if images else None, len(images))

    def _unreviewed(self, order: str) -> list[review.ServedImage]:
        unusual = review.unusual_images(self._context.project.monitoring)
        reviewed = self._reviews.reviewed()
        images = review.served_images(self._reviews.log, unusual)
        left = [image for image in images if image.sha256 not in reviewed]
        return review.sort_images(left, unusual_first=order == ORDERS[1])

    def _render(self, served: review.ServedImage | None, count: int) -> tuple[Any, ...]:
        verdicts = [given.verdict for given in self._reviews.pending().values()]
        ready = sum(verdict != review.SKIP for verdict in verdicts)
        state = f"{count} to review, {ready} reviewed and not yet in the data set"
        if served is None:
            text = "Nothing is left to review." if self._reviews.reviewed() else EMPTY
            return f'<p id="about">{state}</p><p>{text}</p>', None
        try:
            inspected, image = self._score(served, served.category)
            view, message = inspection.render_layers(image, inspected.answer), inspected.error
        except ImageError as error:
            view, message = "", f"{error} Skip it."
        text = (
            f'<p id="about">{_facts(served)}<br>{state}</p><p>{escape(message)}</p>'
            f'<div id="reviewed-image" data-image="{escape(served.sha256)}">{view}</div>'
        )
        categories = self._context.categories()
        known = served.category if served.category in categories else None
        return text, gr.Dropdown(choices=categories, value=known)

    def _score(
        self, served: review.ServedImage, category: str
    ) -> tuple[inspection.InspectionResult, Image.Image]:
        """Score an image with the served version, and decode it."""
        scorer = self._context.versions.served().scorer
        try:
            data = (self._reviews.log / served.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{served.path} was removed ({error.strerror}).") from error
        known = category if category in scorer.pipeline.categories else AUTO
        inspected = inspection.inspect_one(scorer, served.path, data, known)
        return inspected, inspection.decode_image(inspected, scorer.pipeline)


def _facts(served: review.ServedImage) -> str:
    if served.score is None or served.threshold is None:
        result = served.decision or "no threshold"
    else:
        result = f"{served.decision}, score {served.score:.4f}, threshold {served.threshold:.4f}"
    unusual = f"; {served.unusual:.1f} deviations from the reference" if served.unusual else ""
    return (
        f"{escape(served.category)}: {escape(result)}{unusual}, served {escape(served.time[:16])}"
    )
