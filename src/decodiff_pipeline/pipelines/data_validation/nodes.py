"""Nodes of the data_validation pipeline."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.manifest import DataConfig, build_manifest, count_table
from decodiff_pipeline.data.splits import EXCLUDED
from decodiff_pipeline.data.unlisted import image_files, known_files
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig

__all__ = ["build_manifest", "gate", "validate"]

logger = logging.getLogger(__name__)

ERROR = "error"  # the severity that stops the run
NAMED_OFFENDERS = 3


def validate(
    manifest: pd.DataFrame,
    images: ImageFolder,
    data: DataConfig,
    preprocessing: PreprocessConfig,
    validation: ValidationConfig,
) -> tuple[dict[str, Any], str]:
    """Checks the manifest and reports what was checked, what failed and which files.

    Args:
        manifest: From `build_manifest`.
        images: The raw images.
        data: What they are.
        preprocessing: How an image is brought to the model's squares.
        validation: The limits.

    Returns:
        The report as plain data (the same for the same images), and as one HTML page.
    """
    from decodiff_pipeline.pipelines.data_validation.report import render
    from decodiff_pipeline.pipelines.data_validation.suite import run_checks
    from decodiff_pipeline.pipelines.data_validation.tables import exclusions, image_table

    table = image_table(manifest, validation.near_duplicate_bits, preprocessing)
    files = _files(images, manifest, data)
    checks = run_checks(table, files, data.categories, validation)
    report = {
        "success": all(check["success"] for check in checks if check["severity"] == ERROR),
        "html": validation.html,
        "layout": data.layout,
        "images": len(manifest),
        "excluded": int((manifest["split"] == EXCLUDED).sum()),
        "exclusions": exclusions(manifest),
        "categories": count_table(manifest),
        "checks": checks,
    }
    for check in checks:
        if not check["success"] and check["severity"] != ERROR:
            logger.warning("check not passed: %s. %s", _summary(check), check["description"])
    return report, render(report, images)


def gate(manifest: pd.DataFrame, validation_report: dict[str, Any]) -> pd.DataFrame:
    """Lets the manifest pass, without the excluded images, if no check of severity error failed.

    Raises:
        DataError: One did; the message counts the failures and names the first files.
    """
    failed = [
        check
        for check in validation_report["checks"]
        if not check["success"] and check["severity"] == ERROR
    ]
    if failed:
        raise DataError(
            f"data validation failed: {'; '.join(_summary(check) for check in failed)}. Put the "
            "files right or list them under data.exclude; "
            f"{validation_report['html']} shows every one."
        )
    return manifest[manifest["split"] != EXCLUDED].reset_index(drop=True)


def _files(images: ImageFolder, manifest: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """The table of all image files but the excluded ones."""
    from decodiff_pipeline.pipelines.data_validation.tables import file_table

    found = image_files(images.path)
    excluded = {path for entry in data.exclude for path in entry.among(found)}
    known = known_files(images.path, get_layout(data.layout), manifest)
    return file_table([path for path in found if path not in excluded], known)


def _summary(check: dict[str, Any]) -> str:
    """Returns "mask_exists 4 of 30 (a.png, b.png, c.png and 1 more)"."""
    names = [offender["path"] or offender["category"] for offender in check["offenders"]]
    told = ", ".join(names[:NAMED_OFFENDERS])
    if len(names) > NAMED_OFFENDERS:
        told += f" and {len(names) - NAMED_OFFENDERS} more"
    return f"{check['name']} {check['failed']} of {check['checked']} ({told})"
