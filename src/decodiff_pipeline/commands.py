"""The commands that messages tell the user to type."""

from __future__ import annotations

import os
import shlex

_active: str | None = None


def use_environment(name: str | None) -> None:
    """Name the Kedro environment of this run; `None` for the default one.

    Args:
        name: As ``kedro run --env`` took it.
    """
    global _active  # noqa: PLW0603 - Kedro hands the environment to hooks alone
    _active = name


def kedro_run(pipelines: str | None = None, *arguments: str) -> str:
    """A command line that runs pipelines in the environment of this run.

    Without the environment a command that is pasted would work on another data set.

    Args:
        pipelines: Names with commas; `None` for the default pipeline.
        arguments: What follows, as the shell takes it.
    """
    environment = _active or os.environ.get("KEDRO_ENV")
    command = ["kedro run"]
    if environment:
        command.append(f"--env {shlex.quote(environment)}")
    if pipelines:
        command.append(f"--pipelines {pipelines}")
    return " ".join([*command, *arguments])
