"""Nodes of the data_validation pipeline."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from decodiff_pipeline.data.file_names import require_utf8, same_name
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.listing import find_files
from decodiff_pipeline.data.manifest import DataConfig, build_manifest, count_table
from decodiff_pipeline.data.splits import EXCLUDED
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.pipelines.data_validation.report import complaints, render, summary

__all__ = ["build_manifest", "gate", "validate"]

logger = logging.getLogger(__name__)

SYSTEM = "files and folders of the operating system or a network drive"
ERROR = "error"  # severity of the checks that stop the run


def validate(
    manifest: pd.DataFrame,
    images: ImageFolder,
    data: DataConfig,
    preprocessing: PreprocessConfig,
    validation: ValidationConfig,
) -> tuple[dict[str, Any], str]:
    """Run all checks; a failed check of severity warning is logged.

    Returns:
        The report as a JSON value, which is deterministic, and as an HTML page.
    """
    from decodiff_pipeline.pipelines.data_validation.suite import run_checks
    from decodiff_pipeline.pipelines.data_validation.tables import exclusions, image_table

    files, ignored = _files(images, manifest, data)
    table = image_table(manifest, validation.near_duplicate_bits, preprocessing)
    checks = run_checks(table, files, data.categories, validation)
    report = {
        "success": all(check["success"] for check in checks if check["severity"] == ERROR),
        "html": validation.html,
        "layout": data.layout,
        "images": len(manifest),
        "excluded": int((manifest["split"] == EXCLUDED).sum()),
        "exclusions": exclusions(manifest),
        "left_out": ignored,
        "categories": count_table(manifest),
        "checks": checks,
    }
    for check in checks:
        if not check["success"] and check["severity"] != ERROR:
            logger.warning("check not passed: %s", complaints([check]))
    return report, render(report, images.of(manifest))


def gate(manifest: pd.DataFrame, validation_report: dict[str, Any]) -> pd.DataFrame:
    """Stop the run if a check of severity error failed.

    Returns:
        The manifest without the excluded images.
    """
    logger.info("%s", summary(validation_report))
    failed = [
        check
        for check in validation_report["checks"]
        if not check["success"] and check["severity"] == ERROR
    ]
    if failed:
        raise DataError(
            f"data validation failed:\n{complaints(failed)}\nCorrect the files or add them to "
            f"data.exclude; {validation_report['html']} lists all of them."
        )
    return manifest[manifest["split"] != EXCLUDED].reset_index(drop=True)


def _files(
    images: ImageFolder, manifest: pd.DataFrame, data: DataConfig
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The table of all image files that are not excluded, and the ignored files by reason."""
    from decodiff_pipeline.pipelines.data_validation.tables import (
        file_table,
        known_files,
        linked_files,
    )

    root, layout = images.path, get_layout(data.layout)
    listing = find_files(root)
    files = [path.relative_to(root).as_posix() for path in listing.images]
    for path in files:
        require_utf8(path, root)
    unlabelled = [
        path for path in files if {*map(same_name, path.split("/"))} & {*layout.unlabelled}
    ]
    ignored = [
        {"what": what, "count": len(paths), "first": paths[0]}
        for what, paths in (
            (SYSTEM, [path.relative_to(root).as_posix() for path in listing.system]),
            (f"images without labels ({', '.join(layout.unlabelled)})", unlabelled),
        )
        if paths
    ]
    for entry in ignored:
        logger.warning("left out: %(count)d %(what)s, the first is %(first)s", entry)
    excluded = {path for pattern in data.exclude for path in pattern.among(files)}
    checked = {*files} - excluded - {*unlabelled}
    known = known_files(root, layout, manifest)
    return file_table(checked, known, linked_files(manifest)), ignored
