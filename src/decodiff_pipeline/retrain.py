"""One retraining as a scheduler starts it; GitHub, GitLab and cron run the same.

    python -m decodiff_pipeline.retrain
    python -m decodiff_pipeline.retrain --commit --continue-from origin/retrained

Data and artifacts come from the DVC remote, `dvc repro` makes anew what a change of data,
parameters or code has made stale, the artifacts go back to the remote, and the newest version
stands before the gates of the promotion. The result is a Markdown page for a pull request.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.provenance import git_output
from decodiff_pipeline.errors import ConfigurationError, DecodiffError, RetrainingFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

LOCK = "dvc.lock"
MAX_CHARACTERS = 60_000  # GitHub takes 65,536 in a pull request


@dataclass(frozen=True)
class Files:
    """Where the project's catalog keeps what a retraining reads and writes.

    Attributes:
        reports: Folder of the reports; what of it Git does not ignore is committed.
        log: The audit log in it, which is only added to.
        promotion: Outcome and gates, as JSON.
        promotion_page: The same as Markdown.
        evaluation_page: Markdown.
        page: The two pages in one, which is written here.
    """

    reports: Path
    log: Path
    promotion: Path
    promotion_page: Path
    evaluation_page: Path
    page: Path

    @classmethod
    def of(cls, project: Path) -> Files:
        """Ask the catalog of a project."""
        from decodiff_pipeline.dvc_stages import load_project

        catalog = load_project(project).catalog
        names = ("promotion_log", "promotion", "promotion_summary", "evaluation_summary")
        log, outcome, gates, metrics = (project / catalog[name]["filepath"] for name in names)
        return cls(outcome.parent, log, outcome, gates, metrics, outcome.with_name("retrain.md"))


def retrain(
    project: Path, *, commit: bool = False, continue_from: str | None = None
) -> dict[str, Any]:
    """Bring data, model and champion up to date.

    Args:
        project: The project's folder.
        commit: Commit ``dvc.lock`` and the reports that Git tracks, also those of a retraining
            that fails half-way, so that the next one goes on where it stopped.
        continue_from: A revision whose ``dvc.lock`` is newer than the one checked out, such as a
            branch that is not merged yet. Left alone where it does not exist, is merged, or the
            one checked out has changed since they parted. Its lines of the audit log are kept.

    Returns:
        The outcome of the promotion, as in ``promotion.json``.

    Raises:
        ConfigurationError: Something is missing that a retraining needs; nothing was done yet.
        RetrainingFailed: A step has failed; what it printed says why.
    """
    _require(project, commit)
    files = Files.of(project)
    if continue_from is not None:
        _take_lock(project, continue_from, files)
    remote = _has_remote(project)
    if remote:
        _restore(project)
    try:
        _step(project, "dvc", "repro")
    finally:
        # Hours of training are worth keeping even where a later stage has failed.
        if remote:
            _step(project, "dvc", "push")
        if commit:
            _commit(project, files, "Retraining: artifacts")
    try:
        files.promotion.unlink(missing_ok=True)
        _step(project, "kedro", "run", "--pipelines", "promotion")
    finally:
        # A refusal that is an error (promotion.fail_on_refusal) is written before it is raised.
        if files.promotion.exists():
            outcome = _report(files)
            if commit:
                _commit(project, files, f"Retraining: {_headline(outcome)}")
    return outcome


def _require(project: Path, commit: bool) -> None:
    """Look for what would be missed only after hours."""
    for name in ("dvc.yaml", "pyproject.toml", ".dvc"):
        if not (project / name).exists():
            msg = f"{project} has no {name}: name the project's folder, --project FOLDER"
            raise ConfigurationError(msg)
    if not git_output(project, "rev-parse", "HEAD"):
        msg = f"{project} is not a Git repository with a commit, or git is not on the path"
        raise ConfigurationError(msg)
    if commit and git_output(project, "status", "--porcelain", "--untracked-files=no"):
        msg = f"{project} has uncommitted changes; commit or stash them, or leave out --commit"
        raise ConfigurationError(msg)
    if commit and not git_output(project, "var", "GIT_COMMITTER_IDENT"):
        msg = "Git does not know who commits; set user.name and user.email, or leave out --commit"
        raise ConfigurationError(msg)
    if os.environ.get("MLFLOW_TRACKING_URI"):
        from decodiff_pipeline.registry.versions import require_registry

        require_registry()


def _take_lock(project: Path, revision: str, files: Files) -> None:
    """Take what an earlier retraining has recorded and nobody has merged yet."""
    if git_output(project, "rev-parse", "--verify", f"{revision}^{{commit}}") is None:
        logger.info("%s does not exist yet: starting from %s as it is here", revision, LOCK)
    elif git_output(project, "merge-base", "--is-ancestor", revision, "HEAD") is not None:
        logger.info("%s is merged: starting from %s as it is here", revision, LOCK)
    else:
        parted = git_output(project, "merge-base", revision, "HEAD") or ""
        if git_output(project, "diff", "--quiet", parted, "HEAD", "--", LOCK) is None:
            logger.info("%s here is newer than that of %s: starting from it", LOCK, revision)
        else:
            _take_recorded(project, revision, files)
            logger.info("starting from %s of %s", LOCK, revision)
        _take_lines(project, revision, files.log)


def _take_recorded(project: Path, revision: str, files: Files) -> None:
    """Check out the lock and the figures that belong to it, but not the audit log."""
    recorded = [LOCK, files.reports.relative_to(project).as_posix()]
    listed = git_output(project, "ls-tree", "-r", "-z", "--name-only", revision, "--", *recorded)
    log = files.log.relative_to(project).as_posix()
    there = [name for name in (listed or "").split("\0") if name and name != log]
    if there:
        _call(project, "git", "checkout", "--quiet", revision, "--", *there)


def _take_lines(project: Path, revision: str, log: Path) -> None:
    """Add the lines of an audit log that the one here does not have."""
    name = log.relative_to(project).as_posix()
    theirs = (git_output(project, "show", f"{revision}:{name}") or "").splitlines()
    ours = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if set(theirs) - set(ours):
        lines = sorted(dict.fromkeys([*ours, *theirs]), key=_moment)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _moment(line: str) -> str:
    """When a line of the audit log was written; one without comes first."""
    try:
        return str(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return ""


def _has_remote(project: Path) -> bool:
    listed = _call(project, sys.executable, "-m", "dvc", "remote", "list", capture=True)
    if not listed.strip():
        logger.warning("DVC has no remote: data and artifacts are those on this machine")
    return bool(listed.strip())


def _restore(project: Path) -> None:
    """Raw data have to be in the remote; of artifacts, what is missing is made anew."""
    listed = git_output(project, "ls-files", "-z", "--", "*.dvc") or ""
    tracked = [name for name in listed.split("\0") if name]
    if tracked:
        _step(project, "dvc", "pull", *tracked)
    _step(project, "dvc", "pull", "--allow-missing")


def _report(files: Files) -> dict[str, Any]:
    """Write the page, and return what it is about."""
    pages = [
        path.read_text(encoding="utf-8") for path in (files.promotion_page, files.evaluation_page)
    ]
    files.page.write_text("\n".join(pages)[:MAX_CHARACTERS], encoding="utf-8")
    outcome: dict[str, Any] = json.loads(files.promotion.read_text(encoding="utf-8"))
    return outcome


def _headline(outcome: dict[str, Any]) -> str:
    from decodiff_pipeline.registry.promotion_report import headline

    return headline(outcome)


def _commit(project: Path, files: Files, message: str) -> None:
    """Commit the lock and the reports that are not ignored, if they have changed."""
    paths = [path for path in (project / LOCK, files.reports) if path.exists()]
    _call(project, "git", "add", "--", *map(str, paths))
    if git_output(project, "diff", "--cached", "--quiet") is None:
        _call(project, "git", "commit", "--quiet", "--message", message)


def _step(project: Path, tool: str, *arguments: str) -> None:
    """Run a tool of this environment, showing what it prints.

    Raises:
        RetrainingFailed: It ends with an error.
    """
    logger.info("%s", " ".join((tool, *arguments)))
    started = time.monotonic()
    _call(project, sys.executable, "-m", tool, *arguments)
    logger.info("%s took %.0f s", " ".join((tool, *arguments)), time.monotonic() - started)


def _call(project: Path, *command: str, capture: bool = False) -> str:
    # Stages that DVC runs look for `kedro` on the path.
    tools = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(  # noqa: S603 - no shell
        command, cwd=project, env=environment, check=False, text=True,
        stdout=subprocess.PIPE if capture else None,
    )  # fmt: skip
    if done.returncode:
        shown = " ".join(command).replace(sys.executable, "python")
        msg = f"`{shown}` ended with exit code {done.returncode}; see its output above"
        raise RetrainingFailed(msg)
    return done.stdout or ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.retrain")
    parser.description = "Restore with DVC, make anew what has changed, promote, store with DVC."
    parser.add_argument("--project", type=Path, default=Path(), help="default: this folder")
    parser.add_argument(
        "--commit", action="store_true", help="commit dvc.lock and the reports that Git tracks"
    )
    parser.add_argument(
        "--continue-from", metavar="REVISION",
        help="take dvc.lock of this revision if it exists and is not merged",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        outcome = retrain(
            options.project.resolve(), commit=options.commit, continue_from=options.continue_from
        )
    except DecodiffError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"{_headline(outcome)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
