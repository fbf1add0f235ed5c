"""The command line that this run was started with, and those that messages tell to type."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_active: str | None = None
_overrides: Mapping[str, Any] = {}


def use_environment(name: str | None, overrides: Mapping[str, Any] | None = None) -> None:
    """Name what this run was started with; Kedro hands it to hooks alone.

    Args:
        name: Environment, as ``kedro run --env`` took it; `None` for the default one.
        overrides: Parameters, as ``kedro run --params`` took them: a tree.
    """
    global _active, _overrides
    _active, _overrides = name, overrides or {}


def environment() -> str | None:
    """The Kedro environment of this run; `None` for the default one."""
    return _active or os.environ.get("KEDRO_ENV") or None


def overrides() -> dict[str, Any]:
    """Values of this run's ``--params`` by dotted name."""
    return dict(_leaves(_overrides))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def kedro_run(pipelines: str | None = None, *arguments: str) -> str:
    """A command line that runs pipelines in the environment of this run.

    Without the environment a command that is pasted would work on another data set.

    Args:
        pipelines: Names with commas; `None` for the default pipeline.
        arguments: What follows, as the shell takes it.
    """
    command = ["kedro run"]
    if name := environment():
        command.append(f"--env {shlex.quote(name)}")
    if pipelines:
        command.append(f"--pipelines {pipelines}")
    return " ".join([*command, *arguments])
