"""What the tabs of the page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.registry.audit import actor

if TYPE_CHECKING:
    import gradio as gr

    from decodiff_pipeline.app.jobs import Jobs
    from decodiff_pipeline.app.project import AppProject
    from decodiff_pipeline.app.served_versions import ServedVersions


@dataclass(frozen=True)
class Context:
    """The project, its versions, and what runs."""

    project: AppProject
    versions: ServedVersions
    jobs: Jobs

    def categories(self) -> tuple[str, ...]:
        """Of the served version."""
        return self.versions.served().scorer.pipeline.categories

    def person(self, request: gr.Request) -> str:
        """Who is at the page: the name given at the login, else the system's user."""
        return request.username or actor()["user"] or "unknown"
