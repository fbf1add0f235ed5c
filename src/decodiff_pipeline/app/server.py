"""Web app to inspect and review images and to compare versions.

python -m decodiff_pipeline.app.server --env bolts
"""

from __future__ import annotations

import argparse
import hmac
import ipaddress
import os
import signal
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline import commands
from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.tracking.mlflow_values import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.app.context import Context

TOKEN_VARIABLE = "DECODIFF_APP_TOKEN"  # noqa: S105 - the name of a variable
SESSIONS = 32  # sessions whose state is kept
WAITING = 32  # queued requests
KEPT = 3600  # seconds that an upload is kept
MOST_SENT = 1_000_000_000  # bytes of one request
# The browser loads nothing from other hosts, although Gradio's page links to some.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RequestGuard:
    """ASGI middleware: limits the size of requests and adds a Content-Security-Policy header."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request; one larger than `MOST_SENT` is disconnected."""
        received = 0

        async def receiving() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= MOST_SENT else {"type": "http.disconnect"}

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await self._app(scope, receiving, sending)


def build(context: Context) -> Any:
    """Build the page with its tabs: a Gradio ``Blocks``."""
    import gradio as gr

    from decodiff_pipeline.app.context import show_errors
    from decodiff_pipeline.app.inspect_tab import InspectTab
    from decodiff_pipeline.app.review_tab import ReviewTab
    from decodiff_pipeline.app.runs_tab import RunsTab

    title = f"{context.project.model_name}: inspect"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        heading = gr.HTML(elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Inspect", id="inspect") as inspect:
                InspectTab(context, [page.load, inspect.select])
            with gr.Tab("Review", id="review") as review:
                ReviewTab(context, review.select)
            with gr.Tab("Runs", id="runs") as runs:
                RunsTab(context, runs.select, heading)
        gr.on(
            [page.load, inspect.select, review.select], show_errors(context.heading), None, heading,
            api_visibility="private",
        )  # fmt: skip
    return page


def serve(options: argparse.Namespace) -> None:
    """Load the project and serve the page until the process is terminated."""
    import gradio as gr
    from starlette.middleware import Middleware

    from decodiff_pipeline.app.context import Context
    from decodiff_pipeline.app.inspection import MAX_MEGABYTES
    from decodiff_pipeline.app.jobs import Jobs
    from decodiff_pipeline.app.project import AppProject
    from decodiff_pipeline.app.served_versions import ServedVersions

    project = AppProject.load(options.project.resolve(), options.env, options.request_log)
    jobs = Jobs(project)
    page = build(Context(project, ServedVersions(project), jobs))
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    files = resources.files(__package__)

    def is_valid_login(_name: str, token: str) -> bool:
        return hmac.compare_digest(token.encode(), options.token.encode())

    page.launch(
        server_name=options.host,
        server_port=options.port,
        auth=is_valid_login if options.token else None,
        auth_message="Your name, and the app's token as the password.",
        share=False,
        ssr_mode=False,
        quiet=True,
        show_error=False,
        footer_links=[],
        max_file_size=MAX_MEGABYTES * 10**6,
        state_session_capacity=SESSIONS,
        enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(RequestGuard)], "docs_url": None, "redoc_url": None},
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=files.joinpath("page.css").read_text(),
        head=f"<script>{files.joinpath('page.js').read_text()}</script>",
        prevent_thread_lock=True,
    )
    sys.stdout.write(f"http://{options.host}:{page.server_port}   (Ctrl-C ends it)\n")
    sys.stdout.flush()
    try:
        page.block_thread()
    finally:
        jobs.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with a message and status 1 if the page cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.app.server")
    parser.description = "Inspect and review images, and compare versions, in a browser."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
    parser.add_argument("--project", type=Path, default=Path(), help="default: this folder")
    parser.add_argument("--host", default="127.0.0.1", help="another one needs a token")
    parser.add_argument("--port", type=int, default=7860)
    token = os.environ.get(TOKEN_VARIABLE)
    parser.add_argument("--token", default=token, help=f"better ${TOKEN_VARIABLE}: not in `ps`")
    parser.add_argument("--request-log", type=Path, help="default: $DECODIFF_REQUEST_LOG")
    options = parser.parse_args(arguments)
    if not is_loopback(options.host) and not options.token:
        sys.exit(
            f"error: {options.host} is reached from other machines: set {TOKEN_VARIABLE} to a long "
            "random text, or leave out --host"
        )
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    prepare_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with tempfile.TemporaryDirectory(prefix="decodiff-app-") as uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads  # a private folder, not shared with other users
            serve(options)
    except ImportError as error:
        if error.name != "gradio":
            raise
        sys.exit("error: gradio is not installed: pip install 'decodiff-pipeline[app]'")
    except (DecodiffError, OSError) as error:  # a port in use is an OSError
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
