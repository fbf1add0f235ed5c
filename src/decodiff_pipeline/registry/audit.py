"""Who or what moved a model, when, where, and with which code and data."""

from __future__ import annotations

import getpass
import json
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Name of the service, variable that only it sets, and what makes the address of the run.
SERVICES = (
    (
        "github-actions",
        "GITHUB_ACTIONS",
        "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
    ),
    ("gitlab-ci", "GITLAB_CI", "{CI_JOB_URL}"),
)


def actor(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Who or what started this, without the machine's name.

    Args:
        environment: Variables; of CI services only the address of the run and who started it are
            read.

    Returns:
        ``user``, ``host`` (the service, or the system's kind such as ``linux``) and ``run_url``.
    """
    for name, variable, address in SERVICES:
        if environment.get(variable):
            user = environment.get("GITHUB_ACTOR") or environment.get("GITLAB_USER_LOGIN")
            return {"user": user or _user(), "host": name, "run_url": _filled(address, environment)}
    return {"user": _user(), "host": platform.system().lower(), "run_url": None}


def record(action: str, provenance: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """A line of the audit log.

    Args:
        action: ``promotion`` or ``rollback``.
        provenance: Code, data and run; see `datasets.provenance.ProvenanceDataset`.
        **facts: What was done; see `promotion.promote` and `rollback.roll_back`.
    """
    return {
        "action": action,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": actor(),
        **{key: value for key, value in provenance.items() if key != "registered_version"},
        **facts,
    }


def as_tags(line: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a version gets of what was done with it."""
    action = line["action"]
    wanted = ("outcome", "at", "reason", "from_version", "to_version", "mlflow_run_id")
    tags = {f"{action}.{key}": line[key] for key in wanted if line.get(key) is not None}
    tags[f"{action}.by"] = json.dumps({k: v for k, v in line["by"].items() if v is not None})
    failed = [
        f"{gate['name']} ({gate['category']}, {gate['metric']}): {gate['explanation']}"
        for gate in line.get("gates", [])
        if not gate["passed"]
    ]
    if line.get("gates"):
        tags[f"{action}.gates"] = f"{len(line['gates'])} asked, {len(failed)} failed"
        tags[f"{action}.failed"] = "\n".join(failed) or "none"
    return {key: str(value) for key, value in tags.items()}


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return None


def _filled(address: str, environment: Mapping[str, str]) -> str | None:
    try:
        return address.format_map(environment)
    except KeyError:
        return None
