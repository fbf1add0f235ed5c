"""Commits the outputs of `kedro run` to DVC and tags the registered version with `dvc.lock`.

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
    """Run ``dvc commit`` and tag the registered version with the SHA-256 of ``dvc.lock``.

    Args:
        environment: Kedro environment; its ``dvc.yaml`` is regenerated first.

    Returns:
        What was recorded, as a sentence.

    Raises:
        ConfigurationError: The artifacts were made with ``--params`` that no file contains.
        RetrainingFailed: DVC failed; its output gives the reason.
    """
    project = load_project(root, environment)
    _require_written_parameters(project)
    stages = write(root, environment)
    run_tool(root, "dvc", "commit", "--quiet", "--force", str(stages.relative_to(root)))
    raw = root / project.catalog["raw_images"]["filepath"]
    if not raw.with_name(f"{raw.name}.dvc").exists():
        logger.info("the images are not in DVC; `dvc add %s` stores them", raw.relative_to(root))
    return f"{stages.with_name(LOCK_FILE).relative_to(root)} is written; {tag_version(project)}"


def tag_version(project: Project) -> str:
    """Tag the last registered version with the SHA-256 of ``dvc.lock``, if that lists the model.

    Returns:
        The outcome, as a sentence.
    """
    revision = dvc_revision(project.root, project.environment)
    if revision is None:
        paths = ", ".join(unrecorded(project.root, project.environment)[:3])
        reason = f"artifacts differ from dvc.lock ({paths})" if paths else "dvc.lock is incomplete"
        return f"no version is tagged, because {reason}"
    registered, version = registered_version(project)
    if version is None:
        return "no version is tagged, because the registry has no version of this model"
    name = f"{registered['name']} version {version.number}"
    if version.tags.get("dvc_revision") != revision:
        from decodiff_pipeline.registry.versions import Registry

        Registry(registered["name"]).tag(version.number, {"dvc_revision": revision})
    return f"{name} has the tag dvc_revision {revision[:12]}…"


def registered_version(project: Project) -> tuple[dict[str, Any], Any]:
    """The content of ``registration.json``, and its version if the registry has it.

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
        version = Registry(registered["name"]).version(registered["version"])
    except ModelError as error:
        if getattr(error.__cause__, "error_code", None) != UNKNOWN:
            raise
        return registered, None
    same_model = version.tags.get("model_sha256") == registered["sha256"]
    return registered, version if same_model else None


def _require_written_parameters(project: Project) -> None:
    """DVC records the parameters in files; overrides by ``--params`` would be recorded wrongly."""
    trained, evaluated = (
        read_record(project.root / project.catalog[name]["filepath"]) for name in RECORDS
    )
    files = f"conf/{project.environment or 'base'}/parameters_*.yml"
    for name in _overrides(trained):
        used, written = (_value(tree, name) for tree in (trained["parameters"], project.parameters))
        if used not in (None, written):
            raise ConfigurationError(
                f"the model was trained with --params {name}={used}, but {files} has {written}: "
                f"change the file, or train again without the override ({kedro_run('train')})"
            )
    groups = trained.get("parameters", {})
    overrides = [name for name in _overrides(evaluated) if name.split(".")[0] not in groups]
    if overrides:
        raise ConfigurationError(
            f"the last evaluation used {', '.join(overrides)} from --params, which DVC does not "
            f"record: write it into {files} and evaluate again ({kedro_run('evaluation')})"
        )


def _overrides(run_record: dict[str, Any]) -> list[str]:
    """Names of the ``--params`` of the run that wrote a record, without those of no effect."""
    names = str(run_record.get("parameter_overrides") or "").split(", ")
    without_effect = {f"training.{name}" for name in RUN_ONLY}
    return [name for name in names if name and name not in without_effect]


def _value(tree: Any, name: str) -> Any:
    """The value at a dotted name; ``None`` if there is none."""
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def run_tool(root: Path, tool: str, *arguments: str) -> None:
    """Run a command-line tool of this Python environment in the project folder.

    Raises:
        RetrainingFailed: The exit code is not 0.
    """
    command = " ".join((tool, *arguments))
    logger.info("%s", command)
    started = time.monotonic()
    tools = str(Path(sys.executable).parent)  # DVC stages look for `kedro` on the PATH
    done = subprocess.run(  # noqa: S603 - no shell
        [*((sys.executable, "-m") if tool != "git" else ()), tool, *arguments],
        cwd=root,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"},
        check=False,
    )
    if done.returncode:
        msg = f"`{command}` ended with exit code {done.returncode}; see its output above"
        raise RetrainingFailed(msg)
    logger.info("%s took %.0f s", command, time.monotonic() - started)


def prepare(project: Path, name: str | None) -> None:
    """Set the environment of messages, MLflow's default store, and the project's logging."""
    commands.use_environment(name)
    os.environ.setdefault("MLFLOW_TRACKING_URI", default_uri(project))
    if (logging_file := project / "conf" / "logging.yml").is_file():
        from kedro.framework.project import LOGGING

        # From another folder, Kedro uses its default configuration, which wraps at 80 characters.
        LOGGING.configure(read_mapping(logging_file))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.record")
    parser.description = "Record the outputs of kedro run in dvc.lock, and tag the version with it."
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
