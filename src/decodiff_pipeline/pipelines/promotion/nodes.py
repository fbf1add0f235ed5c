"""Nodes of the promotion pipeline; see `decodiff_pipeline.registry.promotion`."""

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
    """Evaluate challenger and champion on the same test images; no alias is moved yet."""
    from decodiff_pipeline.registry import promotion as registry
    from decodiff_pipeline.registry.version_evaluation import EvaluationContext

    context = EvaluationContext(manifest, images.of(manifest), folder, evaluation, promotion)
    return registry.judge_challenger(registration["name"], context, registration["version"])


def move_champion(
    judgement: Any, provenance: dict[str, Any], promotion: PromotionConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Move the alias if the gates are passed or overridden.

    Returns:
        What was done, as JSON, as lines of the audit log, and as Markdown.
    """
    from decodiff_pipeline.registry.audit import render_markdown
    from decodiff_pipeline.registry.promotion import is_logged, promote

    line = promote(judgement, promotion, provenance)
    return line, [line] if is_logged(judgement, line) else [], render_markdown(line)


def stop_if_refused(done: dict[str, Any], promotion: PromotionConfig) -> None:
    """End the run with an error where a refusal is one.

    Raises:
        PromotionRefused: The version was not promoted, and ``fail_on_refusal`` is set.
    """
    from decodiff_pipeline.registry.audit import headline

    if promotion.fail_on_refusal and done["outcome"] in ("refused", "outdated"):
        raise PromotionRefused(f"{headline(done)} (promotion.fail_on_refusal is true)")
