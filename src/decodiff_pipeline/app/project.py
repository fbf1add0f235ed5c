"""The Kedro project of the app: names and paths from its configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.kedro_project import load_project
from decodiff_pipeline.record import prepare
from decodiff_pipeline.serving.request_log import FOLDER_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class AppProject:
    """Paths and settings that the app uses."""

    root: Path
    environment: str | None  # Kedro environment
    model_name: str  # of the registered model
    layout: str  # of the data set
    raw: Path  # folder of the raw images
    overrides: Path  # JSON of the thresholds that users set
    audit_log: Path
    monitoring: Path  # JSON of the last monitoring result
    request_log: Path | None  # folder of the server's request log

    @classmethod
    def load(cls, root: Path, environment: str | None, request_log: Path | None) -> AppProject:
        """Load the configuration of an environment; raises ``ConfigurationError`` without one.

        Args:
            request_log: Folder of the request log; ``None`` for that of ``DECODIFF_REQUEST_LOG``.
        """
        prepare(root, environment)
        project = load_project(root, environment)
        named = os.environ.get(FOLDER_VARIABLE)

        def path(entry: str) -> Path:
            return root / project.catalog[entry]["filepath"]

        return cls(
            root=root,
            environment=project.environment,
            model_name=project.parameters["registration"]["model_name"],
            layout=project.parameters["data"]["layout"],
            raw=path("raw_images"),
            overrides=path("threshold_overrides"),
            audit_log=path("promotion_log"),
            monitoring=path("monitoring"),
            request_log=request_log or (root / named if named else None),
        )
