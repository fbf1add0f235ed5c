"""Whether ``dvc.lock`` names the artifacts that lie in the project; DVC itself is not imported."""

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
BASE = (None, "base", "local")  # environments of the project's own dvc.yaml
# DVC sets it for the stages that it runs. Until the last one ends, the lock is half-written.
IN_STAGE = "DVC_ROOT"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def stages_file(project: Path, environment: str | None) -> Path:
    """The ``dvc.yaml`` of a Kedro environment; its ``dvc.lock`` lies beside it.

    An environment has a file of its own, so that data sets are retrained, pulled and merged
    apart from each other.
    """
    folder = project if environment in BASE else project / "conf" / str(environment)
    return folder / STAGES_FILE


def dvc_revision(project: Path, environment: str | None) -> str | None:
    """SHA-256 of an environment's ``dvc.lock``, which names every artifact by its content.

    Returns:
        ``None`` where there is no lock, where it lacks a stage, while DVC runs a stage, and where
        an artifact is not the one that the lock names.
    """
    lock = stages_file(project, environment).with_name(LOCK_FILE)
    if IN_STAGE in os.environ or not lock.is_file() or unrecorded(project, environment):
        return None
    return file_sha256(lock)


def unrecorded(project: Path, environment: str | None) -> list[str]:
    """Paths that ``dvc.yaml`` has as outputs and that are not what ``dvc.lock`` says.

    Folders with ``persist: true`` are left out: they are large, and what is made from them is
    checked. An output that a later stage was recorded with in another state counts as well.
    """
    file = stages_file(project, environment)
    stages, locked = _read(file), _read(file.with_name(LOCK_FILE))
    made, used = (
        {one["path"]: one.get("md5") for stage in locked.values() for one in stage.get(kind, ())}
        for kind in ("outs", "deps")
    )
    wrong = []
    for path, options in _outputs(stages).items():
        if options.get("persist") and (project / path).is_dir():
            continue
        recorded = made.get(path)
        found = recorded and recorded == used.get(path, recorded) and _md5(project / path)
        if not recorded or found != recorded:
            wrong.append(path)
    return wrong


def stored_outputs(lock: Path) -> list[str]:
    """Paths of a ``dvc.lock`` whose content is in DVC's cache, rather than in Git."""
    outputs = _outputs(_read(lock.with_name(STAGES_FILE)))
    locked = {out["path"] for stage in _read(lock).values() for out in stage.get("outs", ())}
    return [path for path, how in outputs.items() if how.get("cache", True) and path in locked]


def _outputs(stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of every output by its path."""
    lines = [
        line
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for line in stage.get(kind, ())
    ]
    return {
        path: how
        for line in lines
        for path, how in (line if isinstance(line, dict) else {line: {}}).items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        # DVC's files are long, and are read several times in a run: ten times as fast in C.
        content = yaml.load(file.read_bytes(), Loader=LOADER)  # noqa: S506 - a safe one
        return dict((content or {}).get("stages", {}))
    except (OSError, yaml.YAMLError, AttributeError):
        return {}


def _md5(path: Path) -> str | None:
    """The checksum that DVC gives to a file or folder; ``None`` where there is none."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        listed = [
            {"md5": _md5(file), "relpath": name}
            for name, file in sorted(files.items())
            if file.is_file()
        ]
        digest = hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False)
        return f"{digest.hexdigest()}.dir"
    if not path.is_file():
        return None
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, _new_md5).hexdigest()


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
