"""One retraining as a scheduler starts it; GitHub, GitLab and cron run the same.

    python -m decodiff_pipeline.retrain
    python -m decodiff_pipeline.retrain --commit --continue-from origin/retrained
    python -m decodiff_pipeline.retrain --env tiles --commit

Data and artifacts come from the DVC remote, `dvc repro` makes anew what a change of data,
parameters or code has made stale, the artifacts go back to the remote, and the newest version
stands before the gates of the promotion. The result is a Markdown page for a pull request.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline import commands
from decodiff_pipeline.data.provenance import git_output
from decodiff_pipeline.dvc_lock import LOCK_FILE, stages_file, stored_outputs
from decodiff_pipeline.errors import ConfigurationError, DecodiffError, RetrainingFailed
from decodiff_pipeline.kedro_project import Project, load_project
from decodiff_pipeline.record import prepare, registered_version, run_tool, tag_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvc.repo import Repo

logger = logging.getLogger(__name__)

REPORTS = "data/08_reporting"
MAX_CHARACTERS = 60_000  # GitHub takes 65,536 in a pull request


@dataclass(frozen=True)
class Files:
    """Where an environment of a project keeps what a retraining reads and writes."""

    stages: Path  # its ``dvc.yaml``
    reports: Path  # folder of the reports; what of it Git does not ignore is committed
    log: Path  # the audit log in it, which is only added to
    promotion: Path  # outcome and gates, as JSON
    promotion_page: Path  # the same as Markdown
    evaluation_page: Path  # Markdown
    page: Path  # the two pages in one, which is written here

    @classmethod
    def of(cls, project: Project) -> Files:
        """Ask the catalog of a project."""
        names = ("promotion_log", "promotion", "promotion_summary", "evaluation_summary")
        log, outcome, gates, metrics = (
            project.root / project.catalog[name]["filepath"] for name in names
        )
        stages = stages_file(project.root, project.environment)
        page = outcome.with_name("retrain.md")
        return cls(stages, outcome.parent, log, outcome, gates, metrics, page)

    @property
    def lock(self) -> Path:
        """The ``dvc.lock`` of the environment."""
        return self.stages.with_name(LOCK_FILE)


def retrain(
    root: Path,
    *,
    environment: str | None = None,
    commit: bool = False,
    continue_from: str | None = None,
) -> dict[str, Any]:
    """Bring data, model and champion up to date.

    Args:
        environment: Kedro's; the project's own ``dvc.yaml`` without one.
        commit: Commit ``dvc.lock`` and the reports that Git tracks, also those of a retraining
            that fails half-way, so that the next one goes on where it stopped. If nothing has
            changed, nothing is committed.
        continue_from: A revision whose ``dvc.lock`` is newer than the one checked out, such as a
            branch that is not merged yet. Left alone where it does not exist, is merged, or the
            one checked out has changed since they parted. Its lines of the audit log are kept.

    Returns:
        The outcome of the promotion, as in ``promotion.json``.

    Raises:
        ConfigurationError: Something is missing that a retraining needs; nothing was done yet.
        RetrainingFailed: A step has failed; what it printed says why.
    """
    _require(root, environment, commit)
    project = load_project(root, environment)
    files = Files.of(project)
    if continue_from is not None:
        _take_lock(root, continue_from, files)
    remote = _has_remote(root)
    raw, stages = _tracked_inputs(files, root), str(files.stages.relative_to(root))
    if remote:
        _restore(files, root, raw)
    try:
        run_tool(root, "dvc", "repro", stages)
        if registered_version(project)[1] is None:
            # The lock is of another registry: of a laptop, or of a server that was replaced.
            logger.info("the registry lacks the model that %s names: registering it", files.lock)
            run_tool(root, "dvc", "repro", "--force", "--single-item", f"{stages}:registration")
    finally:
        # Hours of training are worth keeping even where a later stage has failed.
        if remote:
            run_tool(root, "dvc", "push", stages, *raw)
        if commit:
            _commit(root, files, "Retraining: artifacts")
    logger.info("%s", tag_version(project))
    return _promote(project, files, commit)


def _promote(project: Project, files: Files, commit: bool) -> dict[str, Any]:
    """Run the promotion, and write its page whether it promotes or refuses."""
    try:
        files.promotion.unlink(missing_ok=True)
        named = ("--env", project.environment) if project.environment else ()
        run_tool(project.root, "kedro", "run", *named, "--pipelines", "promotion")
    finally:
        # A refusal that is an error (promotion.fail_on_refusal) is written before it is raised.
        if files.promotion.exists():
            outcome = _report(files)
            if commit:
                _commit(project.root, files, f"Retraining: {_headline(outcome)}")
    return outcome


def _require(project: Path, environment: str | None, commit: bool) -> None:
    """Look for what would be missed only after hours."""
    for name in ("dvc.yaml", "pyproject.toml", ".dvc"):
        if not (project / name).exists():
            msg = f"{project} has no {name}: name the project's folder, --project FOLDER"
            raise ConfigurationError(msg)
    stages = stages_file(project, environment)
    if not stages.is_file():
        msg = (
            f"there is no {stages.relative_to(project)}: "
            f"python -m decodiff_pipeline.dvc_stages --env {environment} writes it"
        )
        raise ConfigurationError(msg)
    if not git_output(project, "rev-parse", "HEAD"):
        msg = f"{project} is not a Git repository with a commit, or git is not on the path"
        raise ConfigurationError(msg)
    # What a retraining writes may have changed: one that was killed leaves that uncommitted.
    own = (stages.with_name(LOCK_FILE).relative_to(project).as_posix(), REPORTS)
    others = ("--untracked-files=no", "--", ".", *(f":(exclude){name}" for name in own))
    if commit and git_output(project, "status", "--porcelain", *others):
        msg = f"{project} has uncommitted changes; commit or stash them, or leave out --commit"
        raise ConfigurationError(msg)
    if commit and not git_output(project, "var", "GIT_COMMITTER_IDENT"):
        msg = "Git does not know who commits; set user.name and user.email, or leave out --commit"
        raise ConfigurationError(msg)
    lock = git_output(project, "rev-parse", "--git-path", "index.lock")
    if commit and lock is not None and (path := project / lock).exists():
        msg = f"another git works in {project}, or was killed there: remove {path} in that case"
        raise ConfigurationError(msg)
    from decodiff_pipeline.registry.versions import require_registry

    require_registry()


def _take_lock(project: Path, revision: str, files: Files) -> None:
    """Take what an earlier retraining has recorded and nobody has merged yet."""
    lock = files.lock.relative_to(project).as_posix()
    if git_output(project, "rev-parse", "--verify", f"{revision}^{{commit}}") is None:
        logger.info("%s does not exist yet: starting from %s as it is here", revision, lock)
    elif git_output(project, "merge-base", "--is-ancestor", revision, "HEAD") is not None:
        logger.info("%s is merged: starting from %s as it is here", revision, lock)
    else:
        parted = git_output(project, "merge-base", revision, "HEAD") or ""
        if git_output(project, "diff", "--quiet", parted, "HEAD", "--", lock) is None:
            logger.info("%s here is newer than that of %s: starting from it", lock, revision)
        else:
            _take_recorded(project, revision, files)
            logger.info("starting from %s of %s", lock, revision)
        _take_lines(project, revision, files.log)


def _take_recorded(project: Path, revision: str, files: Files) -> None:
    """Check out the lock and the figures that belong to it, but not the audit log."""
    recorded = [path.relative_to(project).as_posix() for path in (files.lock, files.reports)]
    listed = git_output(project, "ls-tree", "-r", "-z", "--name-only", revision, "--", *recorded)
    log = files.log.relative_to(project).as_posix()
    there = [name for name in (listed or "").split("\0") if name and name != log]
    if there:
        run_tool(project, "git", "checkout", "--quiet", revision, "--", *there)


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
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            there = bool(repo.config["remote"])
    except DvcException as error:
        raise RetrainingFailed(f"DVC cannot read {project / '.dvc' / 'config'}: {error}") from error
    if not there:
        logger.warning("DVC has no remote: data and artifacts are those on this machine")
    return there


def _tracked_inputs(files: Files, project: Path) -> list[str]:
    """The pointers of what the stages read and no stage makes, such as the raw images."""
    stages = yaml.safe_load(files.stages.read_bytes())["stages"]
    read = {path for stage in stages.values() for path in stage.get("deps", ())}
    return sorted(f"{path}.dvc" for path in read if (project / f"{path}.dvc").is_file())


def _restore(files: Files, project: Path, raw: list[str]) -> None:
    """Raw data have to be in the remote; of artifacts, what is missing is made anew.

    So is what lies here, is not what the lock names, and was never stored: it is left as it is,
    such as an interrupted training, which the stage goes on with.
    """
    from dvc.repo import Repo

    if raw:
        run_tool(project, "dvc", "pull", *raw)
    run_tool(project, "dvc", "fetch", str(files.stages.relative_to(project)))
    stored = stored_outputs(files.lock)
    with Repo(str(project)) as repo:
        if not stored or _checked_out(repo, stored):
            return
        for path in stored:
            if not _checked_out(repo, [path]):
                logger.warning(
                    "%s stays as it is: it differs from the lock, and no cache has it", path
                )


def _checked_out(repo: Repo, paths: list[str]) -> bool:
    """Check out paths at once, since every call reads the project again, or nothing of them."""
    from dvc.exceptions import DvcException

    try:
        repo.checkout([str(Path(repo.root_dir, path)) for path in paths], allow_missing=True)
    except DvcException:
        return False
    return True


def _report(files: Files) -> dict[str, Any]:
    """Write the page, and return what it is about."""
    pages = [
        path.read_text(encoding="utf-8") for path in (files.promotion_page, files.evaluation_page)
    ]
    files.page.write_text("\n".join(pages)[:MAX_CHARACTERS], encoding="utf-8")
    outcome: dict[str, Any] = json.loads(files.promotion.read_text(encoding="utf-8"))
    return outcome


def _headline(outcome: dict[str, Any]) -> str:
    from decodiff_pipeline.registry.audit import headline

    return headline(outcome)


def _commit(project: Path, files: Files, message: str) -> None:
    """Commit the lock and the reports that are not ignored, if they have changed."""
    paths = [path for path in (files.lock, files.reports) if path.exists()]
    run_tool(project, "git", "add", "--", *map(str, paths))
    if git_output(project, "diff", "--cached", "--quiet") is None:
        run_tool(project, "git", "commit", "--quiet", "--message", message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.retrain")
    parser.description = "Restore with DVC, make anew what has changed, promote, store with DVC."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
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
    root = options.project.resolve()
    prepare(root, options.env)
    try:
        outcome = retrain(
            root,
            environment=options.env,
            commit=options.commit,
            continue_from=options.continue_from,
        )
    except DecodiffError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"{_headline(outcome)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
