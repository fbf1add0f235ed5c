"""Environment and ``--params`` of the current run, and the commands that messages suggest."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_active: str | None = None
_overrides: Mapping[str, Any] = {}


def use_environment(name: str | None, overrides: Mapping[str, Any] | None = None) -> None:
    """Store the environment and ``--params`` of this run, which Kedro passes to hooks only.

    Args:
        name: Value of ``kedro run --env``; `None` for the default environment.
        overrides: Nested parameters of ``kedro run --params``.
    """
    global _active, _overrides
    _active, _overrides = name, overrides or {}


def environment() -> str | None:
    """The Kedro environment of this run; `None` for the default environment."""
    return _active or os.environ.get("KEDRO_ENV") or None


def overrides() -> dict[str, Any]:
    """Parameters of this run's ``--params``: dotted name → value."""
    return dict(_leaves(_overrides))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def kedro_run(pipelines: str | None = None, *arguments: str) -> str:
    """The command that runs pipelines in the environment of this run.

    The command names the environment, because it would use another data set without it.

    Args:
        pipelines: Comma-separated names; `None` for the default pipeline.
        arguments: Further arguments, already quoted for the shell.
    """
    command = ["kedro run"]
    if name := environment():
        command.append(f"--env {shlex.quote(name)}")
    if pipelines:
        command.append(f"--pipelines {pipelines}")
    return " ".join([*command, *arguments])
