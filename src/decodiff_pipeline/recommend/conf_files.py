"""Configuration files with a reason behind every value that was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILES = (
    "globals.yml", "parameters_data.yml", "parameters_caching.yml", "parameters_training.yml",
)  # fmt: skip
HEADER = """\
# Written by kedro run --pipelines recommend; change what you know better.
# A value without a reason is that of conf/base: a group has to be complete, since it takes the
# place of the group there.
"""


def render(groups: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """YAML of some top-level keys.

    Args:
        groups: Key → value or nested mapping.
        reasons: Dotted name → comment on its line.
    """
    return HEADER + "".join(f"{line}\n" for line in _lines(groups, reasons, "", ""))


def _lines(
    tree: Mapping[str, Any], reasons: Mapping[str, str], prefix: str, indent: str
) -> list[str]:
    lines = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        comment = f" # {' '.join(reasons[name].split())}" if name in reasons else ""
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:{comment}")
            lines += _lines(value, reasons, f"{name}.", f"{indent}  ")
        else:
            lines.append(f"{indent}{_scalar(key)}: {_scalar(value)}{comment}")
    return lines


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def write(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Writes an environment; of `FILES`, what is not given is removed.

    Args:
        folder: ``conf/<name>``.
        files: Name → content.

    Returns:
        The names written, in order.

    Raises:
        ConfigurationError: The file system refuses.
    """
    try:
        for name in FILES:
            if name in files:
                with replacing(folder / name) as temporary:
                    temporary.write_text(files[name], encoding="utf-8")
            else:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror or error}): free some space or make it "
            "writable"
        ) from error
    return [name for name in FILES if name in files]
