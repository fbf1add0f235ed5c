"""Provenance of a result: Git commit, digest of the data, digest of the code."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.deco.digests import file_sha256, sha256_of

if TYPE_CHECKING:
    import pandas as pd

IDENTIFYING_COLUMNS = ("category", "split", "label", "path", "sha256")
GIT_SECONDS = 10
PROJECT_FILE = "pyproject.toml"
MADE_BY_RUNS = (
    ":(top,exclude)data",
    ":(top,exclude)dvc.lock",
    ":(top,exclude)conf/*/dvc.lock",
)


@dataclass(frozen=True)
class GitState:
    """The commit of a project and whether it is modified."""

    commit: str | None  # full hash of HEAD; ``None`` without a commit
    # Whether tracked files differ from the commit, as in every DVC experiment; ``None`` if unknown.
    # Files that runs write (`MADE_BY_RUNS`) are ignored.
    dirty: bool | None


def git_state(folder: Path) -> GitState:
    """The Git state of the project that contains a folder.

    It is unknown if the repository does not track the project.
    """
    commit = git_output(folder, "rev-parse", "HEAD")
    if not commit or not _is_tracked(folder):
        return GitState(None, None)
    if "DVC_EXP_NAME" in os.environ:
        # In DVC's copy for a queued experiment, Git does not report modified files.
        return GitState(commit, True)
    changed = ("status", "--porcelain", "--untracked-files=no", "--", ":(top)", *MADE_BY_RUNS)
    changes = git_output(folder, *changed)
    return GitState(commit, None if changes is None else bool(changes))


def _is_tracked(folder: Path) -> bool:
    """Whether the repository tracks the project: the closest folder with a ``pyproject.toml``."""
    absolute = folder.absolute()
    for parent in (absolute, *absolute.parents):
        if (parent / PROJECT_FILE).is_file():
            return bool(git_output(parent, "ls-files", "--", PROJECT_FILE))
        if (parent / ".git").exists():
            break
    return True


def data_digest(manifest: pd.DataFrame) -> str:
    """SHA-256 over `IDENTIFYING_COLUMNS` and the bit depths, independent of the order of rows."""
    identified = manifest.assign(sha256=pixel_identities(manifest))
    rows = identified[list(IDENTIFYING_COLUMNS)].astype(str)
    return sha256_of(sorted(rows.itertuples(index=False, name=None)))


@cache
def code_sha256(*names: str) -> str:
    """SHA-256 over the Python files of the named subpackages."""
    package = Path(__file__).parents[1]
    files = sorted(file for name in names for file in (package / name).rglob("*.py"))
    return sha256_of([(file.relative_to(package).as_posix(), file_sha256(file)) for file in files])


def git_output(folder: Path, *arguments: str) -> str | None:
    """Stripped output of a git command; ``None`` if it fails, times out or git is missing."""
    git = shutil.which("git")
    if git is None:
        return None
    # An output folder may not exist yet: use its closest existing parent.
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir()
    )
    # Without this option, a killed `git status` may leave a lock file that blocks commits.
    command = [git, "--no-optional-locks", "-C", str(existing), *arguments]
    try:
        result = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
