"""Records what `kedro run` made in DVC, and names that record in the version it registered.

python -m decodiff_pipeline.record
python -m decodiff_pipeline.record --env tiles
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline import commands
from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.dvc_lock import LOCK_FILE, dvc_revision, unrecorded
from decodiff_pipeline.dvc_stages import write
from decodiff_pipeline.errors import ConfigurationError, DecodiffError, ModelError, RetrainingFailed
from decodiff_pipeline.kedro_project import Project, load_project
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN, default_uri
from decodiff_pipeline.training.config import RUN_ONLY
from decodiff_pipeline.training.model_record import read_record
from decodiff_pipeline.yaml_reader import read_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

RECORDS = ("model_record", "evaluation_run")


def record(root: Path, environment: str | None) -> str:
    """Let ``dvc.lock`` name the artifacts in the project, and the registered version the lock.

    Args:
        environment: Kedro's; its ``dvc.yaml`` is written first.

    Returns:
        What was recorded, as a sentence.

    Raises:
        ConfigurationError: The artifacts were made with ``--params`` that no file holds.
        RetrainingFailed: DVC has failed; what it printed says why.
    """
    project = load_project(root, environment)
    _require_written_parameters(project)
    stages = write(root, environment)
    run_tool(root, "dvc", "commit", "--quiet", "--force", str(stages.relative_to(root)))
    raw = root / project.catalog["raw_images"]["filepath"]
    if not raw.with_name(f"{raw.name}.dvc").exists():
        place = raw.relative_to(root)
        logger.info("the images are not in DVC; `dvc add %s` stores them", place)
    return f"{stages.with_name(LOCK_FILE).relative_to(root)} is written; {tag_version(project)}"


def tag_version(project: Project) -> str:
    """Tag the version registered last with the revision of ``dvc.lock``, if that names it.

    Returns:
        A sentence that says whether it was done.
    """
    revision = dvc_revision(project.root, project.environment)
    if revision is None:
        others = ", ".join(unrecorded(project.root, project.environment)[:3]) or "none"
        return f"no version is tagged, since dvc.lock names other artifacts ({others})"
    registered, version = registered_version(project)
    if version is None:
        return "no version is tagged, since none in the registry is this model"
    name = f"{registered['name']} version {version.number}"
    if version.tags.get("dvc_revision") != revision:
        from decodiff_pipeline.registry.versions import Registry

        Registry(registered["name"]).tag(version.number, {"dvc_revision": revision})
    return f"{name} has the tag dvc_revision {revision[:12]}…"


def registered_version(project: Project) -> tuple[dict[str, Any], Any]:
    """What the registration wrote last, and the version in the registry if it is there.

    Raises:
        ModelError: MLflow cannot be reached.
    """
    from decodiff_pipeline.registry.versions import Registry

    path = project.root / project.catalog["registration"]["filepath"]
    try:
        registered = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}, None
    try:
        found = Registry(registered["name"]).version(registered["version"])
    except ModelError as error:
        if getattr(error.__cause__, "error_code", None) != UNKNOWN:
            raise
        return registered, None
    is_this = found.tags.get("model_sha256") == registered["sha256"]
    return registered, found if is_this else None


def _require_written_parameters(project: Project) -> None:
    """DVC reads parameters from files: what ``--params`` gave would be recorded wrongly."""
    made, evaluated = (
        read_record(project.root / project.catalog[name]["filepath"]) for name in RECORDS
    )
    where = f"conf/{project.environment or 'base'}/parameters_*.yml"
    for name in _names(made):
        used, written = (_value(tree, name) for tree in (made["parameters"], project.parameters))
        if used not in (None, written):
            raise ConfigurationError(
                f"the model was trained with --params {name}={used}, where {where} says {written}: "
                f"write it there, or train again without it ({kedro_run('train')})"
            )
    others = [n for n in _names(evaluated) if n.split(".")[0] not in made.get("parameters", {})]
    if others:
        raise ConfigurationError(
            f"the last evaluation was given {', '.join(others)} by --params, which DVC does not "
            f"see: write it into {where} and evaluate again ({kedro_run('evaluation')})"
        )


def _names(made: dict[str, Any]) -> list[str]:
    """What ``--params`` gave to the run that wrote a record."""
    names = str(made.get("parameter_overrides") or "").split(", ")
    indifferent = {f"training.{name}" for name in RUN_ONLY}
    return [name for name in names if name and name not in indifferent]


def _value(tree: Any, name: str) -> Any:
    """What is under a dotted name; ``None`` where there is nothing."""
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def run_tool(root: Path, tool: str, *arguments: str) -> None:
    """Run a tool of this environment in the project's folder.

    Raises:
        RetrainingFailed: It ends with an error.
    """
    shown = " ".join((tool, *arguments))
    logger.info("%s", shown)
    started = time.monotonic()
    tools = str(Path(sys.executable).parent)  # stages that DVC runs look for `kedro` on the path
    done = subprocess.run(  # noqa: S603 - no shell
        [*((sys.executable, "-m") if tool != "git" else ()), tool, *arguments],
        cwd=root,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"},
        check=False,
    )
    if done.returncode:
        msg = f"`{shown}` ended with exit code {done.returncode}; see its output above"
        raise RetrainingFailed(msg)
    logger.info("%s took %.0f s", shown, time.monotonic() - started)


def prepare(project: Path, name: str | None) -> None:
    """Make messages name the environment, and MLflow the store that the tracking hook takes."""
    commands.use_environment(name)
    os.environ.setdefault("MLFLOW_TRACKING_URI", default_uri(project))
    if (logging_file := project / "conf" / "logging.yml").is_file():
        from kedro.framework.project import LOGGING

        # Called from another folder, Kedro takes its own, which breaks lines at 80 characters.
        LOGGING.configure(read_mapping(logging_file))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.record")
    parser.description = "Let dvc.lock name what kedro run made, and the version the lock."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
    parser.add_argument("--project", type=Path, default=Path(), help="default: this folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    root = options.project.resolve()
    prepare(root, options.env)
    try:
        sys.stdout.write(f"{record(root, options.env)}\n")
    except DecodiffError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
