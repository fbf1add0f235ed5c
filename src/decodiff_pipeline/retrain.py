"""The retraining command for schedulers such as GitHub, GitLab and cron.

    python -m decodiff_pipeline.retrain
    python -m decodiff_pipeline.retrain --commit --continue-from origin/retrained
    python -m decodiff_pipeline.retrain --env tiles --commit

It pulls data and artifacts from the DVC remote, runs `dvc repro`, pushes the artifacts, promotes
the newest version if it passes its gates, and writes a Markdown page for a pull request.
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
from decodiff_pipeline.registry.audit import headline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvc.repo import Repo

logger = logging.getLogger(__name__)

REPORTS = "data/08_reporting"
MAX_CHARACTERS = 60_000  # GitHub's limit for a pull request is 65,536


@dataclass(frozen=True)
class Files:
    """Files of a project's environment that a retraining reads and writes."""

    stages: Path  # ``dvc.yaml``
    reports: Path  # folder of the reports; files that Git does not ignore are committed
    log: Path  # audit log in that folder, append-only
    promotion: Path  # outcome and gates, JSON
    promotion_page: Path  # outcome and gates, Markdown
    evaluation_page: Path  # Markdown
    page: Path  # both pages, written by the retraining

    @classmethod
    def of(cls, project: Project) -> Files:
        """The paths in a project's catalog."""
        names = ("promotion_log", "promotion", "promotion_summary", "evaluation_summary")
        log, promotion, promotion_page, evaluation_page = (
            project.root / project.catalog[name]["filepath"] for name in names
        )
        return cls(
            stages=stages_file(project.root, project.environment),
            reports=promotion.parent,
            log=log,
            promotion=promotion,
            promotion_page=promotion_page,
            evaluation_page=evaluation_page,
            page=promotion.with_name("retrain.md"),
        )

    @property
    def lock(self) -> Path:
        """``dvc.lock`` of the environment."""
        return self.stages.with_name(LOCK_FILE)


def retrain(
    root: Path,
    *,
    environment: str | None = None,
    commit: bool = False,
    continue_from: str | None = None,
) -> dict[str, Any]:
    """Update data, model and champion.

    Args:
        environment: Kedro environment; ``None`` for base and local.
        commit: Commit ``dvc.lock`` and the reports that Git tracks, even if a stage fails, so that
            the next retraining continues there. Without changes there is no commit.
        continue_from: Revision with a newer ``dvc.lock``, such as an unmerged branch. It is ignored
            if it does not exist, is merged, or if the current ``dvc.lock`` has changed since the
            merge base. In the last case, its lines of the audit log are still added.

    Returns:
        The outcome of the promotion, as in ``promotion.json``.

    Raises:
        ConfigurationError: A requirement is missing; nothing has changed.
        RetrainingFailed: A step failed and printed the reason.
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
            # The lock was written with another registry, such as a laptop's or an earlier server's.
            logger.info("the registry lacks the model of %s: registering it", files.lock)
            run_tool(root, "dvc", "repro", "--force", "--single-item", f"{stages}:registration")
    finally:
        # Store the artifacts of completed stages, such as a long training, even after a failure.
        if remote:
            run_tool(root, "dvc", "push", stages, *raw)
        if commit:
            _commit(root, files, "Retraining: artifacts")
    logger.info("%s", tag_version(project))
    return _promote(project, files, commit)


def _promote(project: Project, files: Files, commit: bool) -> dict[str, Any]:
    """Run the promotion and write its page, also after a refusal."""
    try:
        files.promotion.unlink(missing_ok=True)
        options = ("--env", project.environment) if project.environment else ()
        run_tool(project.root, "kedro", "run", *options, "--pipelines", "promotion")
    finally:
        # With promotion.fail_on_refusal, the run writes the outcome before it fails.
        if files.promotion.exists():
            outcome = _report(files)
            if commit:
                _commit(project.root, files, f"Retraining: {headline(outcome)}")
    return outcome


def _require(project: Path, environment: str | None, commit: bool) -> None:
    """Check the requirements whose absence would fail only after the training."""
    for name in ("dvc.yaml", "pyproject.toml", ".dvc"):
        if not (project / name).exists():
            msg = f"{project} has no {name}: give the project folder with --project FOLDER"
            raise ConfigurationError(msg)
    stages = stages_file(project, environment)
    if not stages.is_file():
        msg = (
            f"{stages.relative_to(project)} does not exist: "
            f"python -m decodiff_pipeline.dvc_stages --env {environment} writes it"
        )
        raise ConfigurationError(msg)
    if not git_output(project, "rev-parse", "HEAD"):
        msg = f"{project} is not a Git repository with a commit, or git is not on the PATH"
        raise ConfigurationError(msg)
    # A killed retraining leaves the files that it writes uncommitted, so these may have changed.
    written = (stages.with_name(LOCK_FILE).relative_to(project).as_posix(), REPORTS)
    others = ("--untracked-files=no", "--", ".", *(f":(exclude){name}" for name in written))
    if commit and git_output(project, "status", "--porcelain", *others):
        msg = f"{project} has uncommitted changes; commit or stash them, or omit --commit"
        raise ConfigurationError(msg)
    if commit and not git_output(project, "var", "GIT_COMMITTER_IDENT"):
        msg = "Git has no committer identity; set user.name and user.email, or omit --commit"
        raise ConfigurationError(msg)
    lock = git_output(project, "rev-parse", "--git-path", "index.lock")
    if commit and lock is not None and (path := project / lock).exists():
        msg = (
            f"another Git process works in {project}, or was killed: remove {path} if no Git "
            "process is active"
        )
        raise ConfigurationError(msg)
    from decodiff_pipeline.registry.versions import require_registry

    require_registry()


def _take_lock(project: Path, revision: str, files: Files) -> None:
    """Take the results of an earlier retraining that are not merged yet."""
    lock = files.lock.relative_to(project).as_posix()
    if git_output(project, "rev-parse", "--verify", f"{revision}^{{commit}}") is None:
        logger.info("%s does not exist yet: starting from the current %s", revision, lock)
    elif git_output(project, "merge-base", "--is-ancestor", revision, "HEAD") is not None:
        logger.info("%s is merged: starting from the current %s", revision, lock)
    else:
        merge_base = git_output(project, "merge-base", revision, "HEAD") or ""
        if git_output(project, "diff", "--quiet", merge_base, "HEAD", "--", lock) is None:
            logger.info("the current %s is newer than that of %s: starting from it", lock, revision)
        else:
            _check_out_lock_and_reports(project, revision, files)
            logger.info("starting from %s of %s", lock, revision)
        _merge_audit_log(project, revision, files.log)


def _check_out_lock_and_reports(project: Path, revision: str, files: Files) -> None:
    """Check out ``dvc.lock`` and the reports of a revision, except the audit log."""
    paths = [path.relative_to(project).as_posix() for path in (files.lock, files.reports)]
    listing = git_output(project, "ls-tree", "-r", "-z", "--name-only", revision, "--", *paths)
    log = files.log.relative_to(project).as_posix()
    tracked = [name for name in (listing or "").split("\0") if name and name != log]
    if tracked:
        run_tool(project, "git", "checkout", "--quiet", revision, "--", *tracked)


def _merge_audit_log(project: Path, revision: str, log: Path) -> None:
    """Add a revision's lines of the audit log, sorted by time."""
    name = log.relative_to(project).as_posix()
    theirs = (git_output(project, "show", f"{revision}:{name}") or "").splitlines()
    ours = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if set(theirs) - set(ours):
        lines = sorted(dict.fromkeys([*ours, *theirs]), key=_timestamp)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _timestamp(line: str) -> str:
    """Time of a line of the audit log; empty, so that it sorts first, without one."""
    try:
        return str(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return ""


def _has_remote(project: Path) -> bool:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            has_remote = bool(repo.config["remote"])
    except DvcException as error:
        raise RetrainingFailed(f"DVC cannot read {project / '.dvc' / 'config'}: {error}") from error
    if not has_remote:
        logger.warning("DVC has no remote: using the data and artifacts on this machine")
    return has_remote


def _tracked_inputs(files: Files, project: Path) -> list[str]:
    """The ``.dvc`` files of the stages' inputs, such as the raw images."""
    stages = yaml.safe_load(files.stages.read_bytes())["stages"]
    inputs = {path for stage in stages.values() for path in stage.get("deps", ())}
    return sorted(f"{path}.dvc" for path in inputs if (project / f"{path}.dvc").is_file())


def _restore(files: Files, project: Path, raw: list[str]) -> None:
    """Pull raw data, which must be in the remote, and check out the artifacts of the lock.

    `dvc repro` recomputes artifacts that the remote lacks. Outputs that differ from the lock and
    are not in the cache stay unchanged: they include an interrupted training, which its stage
    continues.
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
                    "%s stays as it is: it differs from the lock, and DVC's cache lacks it", path
                )


def _checked_out(repo: Repo, paths: list[str]) -> bool:
    """Check out all paths in one call, because each call reads the project, or none of them."""
    from dvc.exceptions import DvcException

    try:
        repo.checkout([str(Path(repo.root_dir, path)) for path in paths], allow_missing=True)
    except DvcException:
        return False
    return True


def _report(files: Files) -> dict[str, Any]:
    """Write the page of both reports; returns the outcome of the promotion."""
    pages = [
        path.read_text(encoding="utf-8") for path in (files.promotion_page, files.evaluation_page)
    ]
    files.page.write_text("\n".join(pages)[:MAX_CHARACTERS], encoding="utf-8")
    outcome: dict[str, Any] = json.loads(files.promotion.read_text(encoding="utf-8"))
    return outcome


def _commit(project: Path, files: Files, message: str) -> None:
    """Commit ``dvc.lock`` and the reports that Git does not ignore, if they have changed."""
    paths = [path for path in (files.lock, files.reports) if path.exists()]
    run_tool(project, "git", "add", "--", *map(str, paths))
    if git_output(project, "diff", "--cached", "--quiet") is None:
        run_tool(project, "git", "commit", "--quiet", "--message", message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.retrain")
    parser.description = "Pull with DVC, run the changed stages, push with DVC, promote."
    parser.add_argument("--env", default=commands.environment(), help="Kedro environment")
    parser.add_argument("--project", type=Path, default=Path(), help="default: current folder")
    parser.add_argument(
        "--commit", action="store_true", help="commit dvc.lock and the reports that Git tracks"
    )
    parser.add_argument(
        "--continue-from", metavar="REVISION",
        help="start from the dvc.lock of this revision if it exists and is not merged",
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
    sys.stdout.write(f"{headline(outcome)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
