"""Judges a new version against the champion on the current test images, then promotes or refuses.

`judge_challenger` measures and evaluates the gates; `promote` moves the aliases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.provenance import data_digest
from decodiff_pipeline.registry import audit
from decodiff_pipeline.registry.gates import Gate, as_rows, can_be_overridden, failed, judge
from decodiff_pipeline.registry.version_evaluation import evaluate_challenger
from decodiff_pipeline.registry.versions import CHAMPION, REPLACED, ROLLED_BACK, Registry, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.registry.config import PromotionConfig
    from decodiff_pipeline.registry.version_evaluation import EvaluationContext

IDENTITY = ("model_sha256", "thresholds_sha256", "data_digest", "git_commit", "dvc_revision")
MOVED = ("promoted", "overridden")
REPEATED = ("promotion.outcome", "promotion.from_version")


@dataclass(frozen=True)
class Judgement:
    """The evaluated gates of a challenger, before any alias moves."""

    challenger: Version
    champion: Version | None  # at the time of the judgement
    gates: list[Gate]  # empty if the challenger is the champion
    notes: list[str]  # further sentences for the audit log
    data_digest: str  # of the current manifest


def judge_challenger(
    name: str, context: EvaluationContext, registered: str | None = None
) -> Judgement:
    """Evaluate the challenger and the champion on the same test images, and every gate.

    Args:
        registered: Number of the version that this project registered last. If the challenger is
            another version, a note says so.

    Raises:
        ModelError: There is no challenger, or MLflow cannot be reached.
        StoreError: The files of a version cannot be downloaded now.
    """
    registry = Registry(name)
    challenger, champion = registry.version(context.config.challenger), registry.champion()
    digest = data_digest(context.manifest)
    if champion is not None and champion.number == challenger.number:
        notes = [f"version {challenger.number} is the champion already; nothing is to be done"]
        return Judgement(challenger, champion, [], notes, digest)
    notes = _data_notes(challenger, champion, digest)
    if registered is not None and registered != challenger.number:
        notes.append(
            f"{context.config.challenger} is version {challenger.number}, and not version "
            f"{registered}, which was registered here last"
        )
    inputs = evaluate_challenger(challenger, champion, context, notes)
    return Judgement(challenger, champion, judge(inputs, context.config), notes, digest)


def promote(
    judgement: Judgement, config: PromotionConfig, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Move ``champion`` if the gates passed or are overridden and the champion is still the same.

    The caller writes the returned line to the audit log, then calls `audit.settle_move`.

    Returns:
        The line of the audit log. Its ``outcome`` is ``promoted``, ``overridden``, ``refused``,
        ``outdated`` (the champion moved since the judgement) or ``unchanged``.

    Raises:
        ModelError: MLflow cannot be reached; no alias moved unless the message says so.
    """
    challenger = judgement.challenger
    registry = Registry(challenger.name)
    before = judgement.champion and judgement.champion.number
    notes = list(judgement.notes)
    with registry.locked():
        current = registry.aliases().get(CHAMPION)
        outcome = _outcome(judgement, config, current, notes)
        line = audit.record(
            "promotion",
            provenance,
            name=challenger.name,
            outcome=outcome,
            from_version=before,
            to_version=challenger.number,
            reason=config.override_reason if outcome == "overridden" else None,
            gates=as_rows(judgement.gates),
            notes=notes,
            data_digest=judgement.data_digest,
            challenger=_identity(challenger),
            champion=judgement.champion and _identity(judgement.champion),
        )
        if outcome in MOVED:
            # If the process is killed in between, the champion has a tag with its predecessor.
            registry.tag(challenger.number, {REPLACED: current or ""})
            audit.announce_move(registry, line, current)
            notes += registry.set_champion(challenger.number, current)
        if outcome != "unchanged":
            reset = {ROLLED_BACK: ""} if outcome in MOVED else {}
            registry.tag(challenger.number, audit.as_tags(line) | reset)
    return line


def is_logged(judgement: Judgement, line: Mapping[str, Any]) -> bool:
    """Whether to write a line to the audit log.

    A line without a decision is not written. Every retraining judges a refused version again, so a
    refusal by the same gates beside the same champion is not written twice.

    Args:
        judgement: From `judge_challenger`, with the challenger's tags before this promotion.
    """
    if line["outcome"] != "refused":
        return bool(line["outcome"] != "unchanged")
    before, now = judgement.challenger.tags, audit.as_tags(line)
    same = all(before.get(key) == now.get(key) for key in REPEATED)
    return not (same and _failed_names(before) == _failed_names(now))


def _failed_names(tags: Mapping[str, str]) -> list[str]:
    """The names of the failed gates in a version's tags."""
    return [line.split(": ")[0] for line in tags.get("promotion.failed", "").splitlines()]


def _outcome(
    judgement: Judgement, config: PromotionConfig, current: str | None, notes: list[str]
) -> str:
    if current == judgement.challenger.number:
        return "unchanged"
    before = judgement.champion and judgement.champion.number
    if current != before:
        notes.append(
            f"the champion was version {before} when this was judged and is version {current} now; "
            f"run {kedro_run('promotion')} again"
        )
        return "outdated"
    if not failed(judgement.gates):
        return "promoted"
    if config.override_reason is None:
        return "refused"
    if not can_be_overridden(judgement.gates):
        notes.append("a version that does not answer as it was registered is not overridden")
        return "refused"
    return "overridden"


def _identity(version: Version) -> dict[str, str | None]:
    return {"version": version.number, **{key: version.tags.get(key) for key in IDENTITY}}


def _data_notes(challenger: Version, champion: Version | None, digest: str) -> list[str]:
    """Notes on a missing champion, and on versions that were registered with other data."""
    notes = []
    if champion is None:
        notes.append("there is no champion yet: only what is asked without one counts")
    for role, version in (("champion", champion), ("challenger", challenger)):
        if version is not None and version.tags.get("data_digest") != digest:
            notes.append(
                f"the {role} (version {version.number}) was registered with other data; "
                "it is judged on the current test images"
            )
    return notes
