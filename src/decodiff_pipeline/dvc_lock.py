"""Compares ``dvc.lock`` with the artifacts in the project, without importing DVC."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline.deco.digests import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

STAGES_FILE, LOCK_FILE = "dvc.yaml", "dvc.lock"
BASE = (None, "base", "local")  # environments that use the dvc.yaml in the project root
# DVC sets this variable for the stages that it runs; dvc.lock is incomplete until the last ends.
IN_STAGE = "DVC_ROOT"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def stages_file(project: Path, environment: str | None) -> Path:
    """The ``dvc.yaml`` of a Kedro environment; its ``dvc.lock`` is in the same folder.

    Each environment has its own file, so that data sets are retrained, pulled and merged
    independently.
    """
    folder = project if environment in BASE else project / "conf" / str(environment)
    return folder / STAGES_FILE


def dvc_revision(project: Path, environment: str | None) -> str | None:
    """SHA-256 of an environment's ``dvc.lock``, which lists the checksum of every artifact.

    Returns:
        ``None`` if there is no lock, if it lacks a stage, while DVC runs a stage, or if an
        artifact differs from the lock.
    """
    lock = stages_file(project, environment).with_name(LOCK_FILE)
    if IN_STAGE in os.environ or not lock.is_file() or unrecorded(project, environment):
        return None
    return file_sha256(lock)


def unrecorded(project: Path, environment: str | None) -> list[str]:
    """Output paths of ``dvc.yaml`` whose content differs from ``dvc.lock`` or is not in it.

    Folders with ``persist: true`` are not checked: they are large, and the outputs made from them
    are checked. An output is also listed if a later stage was recorded with another version of it.
    """
    file = stages_file(project, environment)
    stages, locked = _read(file), _read(file.with_name(LOCK_FILE))
    outs, deps = (
        {
            entry["path"]: entry.get("md5")
            for stage in locked.values()
            for entry in stage.get(key, ())
        }
        for key in ("outs", "deps")
    )
    differing = []
    for path, options in _outputs(stages).items():
        if options.get("persist") and (project / path).is_dir():
            continue
        recorded = outs.get(path)
        if not recorded or deps.get(path, recorded) != recorded or _md5(project / path) != recorded:
            differing.append(path)
    return differing


def stored_outputs(lock: Path) -> list[str]:
    """Output paths of a ``dvc.lock`` that are stored in DVC's cache, not in Git."""
    outputs = _outputs(_read(lock.with_name(STAGES_FILE)))
    locked = {out["path"] for stage in _read(lock).values() for out in stage.get("outs", ())}
    return [
        path for path, options in outputs.items() if options.get("cache", True) and path in locked
    ]


def _outputs(stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The outputs of all stages: path → options."""
    entries = [
        entry
        for stage in stages.values()
        for key in ("outs", "metrics", "plots")
        for entry in stage.get(key, ())
    ]
    return {
        path: options
        for entry in entries
        for path, options in (entry if isinstance(entry, dict) else {entry: {}}).items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        # DVC's files are long, and are read several times in a run: ten times as fast in C.
        content = yaml.load(file.read_bytes(), Loader=LOADER)  # noqa: S506 - a safe one
        return dict((content or {}).get("stages", {}))
    except (OSError, yaml.YAMLError, AttributeError):
        return {}


def _md5(path: Path) -> str | None:
    """The MD5 checksum that DVC computes for a file or folder; ``None`` if it does not exist."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        entries = [
            {"md5": _md5(file), "relpath": name}
            for name, file in sorted(files.items())
            if file.is_file()
        ]
        digest = hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False)
        return f"{digest.hexdigest()}.dir"
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
