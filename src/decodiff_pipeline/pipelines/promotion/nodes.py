"""Nodes of the promotion pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.errors import PromotionRefused
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.registry.config import PromotionConfig


def judge_challenger(
    registration: dict[str, Any],
    manifest: pd.DataFrame,
    images: ImageFolder,
    folder: Path,
    evaluation: EvaluationConfig,
    promotion: PromotionConfig,
) -> Any:
    """Evaluate challenger and champion on the same test images and check the gates.

    Returns:
        A judgement of `registry.promotion`; no alias is moved yet.
    """
    from decodiff_pipeline.registry import promotion as registry
    from decodiff_pipeline.registry.version_evaluation import EvaluationContext

    context = EvaluationContext(manifest, images.of(manifest), folder, evaluation, promotion)
    return registry.judge_challenger(registration["name"], context, registration["version"])


def move_champion(
    judgement: Any, provenance: dict[str, Any], promotion: PromotionConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Move the alias ``champion`` if the gates are passed or overridden.

    First it completes the move of a run that was killed before the audit log had its line.

    Returns:
        The outcome as a JSON value, the new lines of the audit log, and a summary in Markdown.
    """
    from decodiff_pipeline.registry import audit
    from decodiff_pipeline.registry.promotion import is_logged, promote

    finished = audit.finish_move(judgement.challenger.name)
    line = promote(judgement, promotion, provenance)
    lines = [] if finished is None else [finished]
    lines += [line] if is_logged(judgement, line) else []
    return line, lines, audit.render_markdown(line)


def settle(done: dict[str, Any], promotion: PromotionConfig) -> None:
    """Mark the move as logged, after the audit log is saved.

    Raises:
        PromotionRefused: The version was not promoted and ``promotion.fail_on_refusal`` is set.
    """
    from decodiff_pipeline.registry import audit

    audit.settle_move(done["name"])
    if promotion.fail_on_refusal and done["outcome"] in ("refused", "outdated"):
        raise PromotionRefused(f"{audit.headline(done)} (promotion.fail_on_refusal is true)")
