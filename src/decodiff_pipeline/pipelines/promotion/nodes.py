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
    """Score challenger and champion on the same test images and ask every gate.

    Args:
        registration: From the registration, for the model's name and the version made here last.
        manifest: The validated manifest.
        images: The raw images.
        folder: For the predictions of both.
        evaluation: Batch size and limit of AUPRO.
        promotion: Gates.

    Returns:
        A `decodiff_pipeline.registry.promotion.Judgement`; nothing is moved yet.

    Raises:
        ModelError: There is no challenger, or MLflow cannot be reached.
        StoreError: The files of a version cannot be fetched now.
    """
    from decodiff_pipeline.registry import promotion as registry
    from decodiff_pipeline.registry.trial import Arena

    arena = Arena(manifest, images.of(manifest), folder, evaluation, promotion)
    return registry.judge_challenger(registration["name"], arena, registration["version"])


def move_champion(
    judgement: Any, folder: Path, promotion: PromotionConfig
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Move the alias if the gates are passed or overridden.

    Args:
        judgement: From `judge_challenger`.
        folder: Of the repository, for the state of the code.
        promotion: For the reason of an override.

    Returns:
        What was done, as JSON, as a line of the audit log, and as Markdown; see
        `decodiff_pipeline.registry.promotion.promote`.

    Raises:
        ModelError: MLflow cannot be reached.
    """
    from decodiff_pipeline.registry.promotion import promote
    from decodiff_pipeline.registry.promotion_report import render_markdown

    line = promote(judgement, promotion, folder)
    return line, line, render_markdown(line)


def stop_if_refused(done: dict[str, Any], promotion: PromotionConfig) -> None:
    """End the run with an error where a refusal is one.

    Args:
        done: From `move_champion`.
        promotion: Whether a refusal is an error.

    Raises:
        PromotionRefused: The version was not promoted, and ``fail_on_refusal`` is set.
    """
    from decodiff_pipeline.registry.promotion_report import headline

    if promotion.fail_on_refusal and done["outcome"] in ("refused", "outdated"):
        raise PromotionRefused(f"{headline(done)} (promotion.fail_on_refusal is true)")
