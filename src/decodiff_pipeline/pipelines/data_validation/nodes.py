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
ERROR = "error"  # the severity that stops the run


def validate(
    manifest: pd.DataFrame,
    images: ImageFolder,
    data: DataConfig,
    preprocessing: PreprocessConfig,
    validation: ValidationConfig,
) -> tuple[dict[str, Any], str]:
    """Checks the manifest and reports what was checked, what failed and which files.

    Returns:
        The report as plain data (the same for the same images), and as one HTML page.
    """
    from decodiff_pipeline.pipelines.data_validation.suite import run_checks
    from decodiff_pipeline.pipelines.data_validation.tables import exclusions, image_table

    files, left_out = _files(images, manifest, data)
    table = image_table(manifest, validation.near_duplicate_bits, preprocessing)
    checks = run_checks(table, files, data.categories, validation)
    report = {
        "success": all(check["success"] for check in checks if check["severity"] == ERROR),
        "html": validation.html,
        "layout": data.layout,
        "images": len(manifest),
        "excluded": int((manifest["split"] == EXCLUDED).sum()),
        "exclusions": exclusions(manifest),
        "left_out": left_out,
        "categories": count_table(manifest),
        "checks": checks,
    }
    for check in checks:
        if not check["success"] and check["severity"] != ERROR:
            logger.warning("check not passed: %s", complaints([check]))
    return report, render(report, images.of(manifest))


def gate(manifest: pd.DataFrame, validation_report: dict[str, Any]) -> pd.DataFrame:
    """Lets the manifest pass, without the excluded images, if no check of severity error failed.

    Raises:
        DataError: One did; the message counts the failures and names one file a folder and kind.
    """
    logger.info("%s", summary(validation_report))
    failed = [
        check
        for check in validation_report["checks"]
        if not check["success"] and check["severity"] == ERROR
    ]
    if failed:
        raise DataError(
            f"data validation failed:\n{complaints(failed)}\nPut the files right or list them "
            f"under data.exclude; {validation_report['html']} shows every one."
        )
    return manifest[manifest["split"] != EXCLUDED].reset_index(drop=True)


def _files(
    images: ImageFolder, manifest: pd.DataFrame, data: DataConfig
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Returns the table of all image files but the excluded ones; and what else is left out."""
    from decodiff_pipeline.pipelines.data_validation.tables import (
        file_table,
        known_files,
        linked_files,
    )

    root, layout = images.path, get_layout(data.layout)
    found = find_files(root)
    files = [path.relative_to(root).as_posix() for path in found.images]
    for path in files:
        require_utf8(path, root)
    unlabelled = [
        path for path in files if {*map(same_name, path.split("/"))} & {*layout.unlabelled}
    ]
    left_out = [
        {"what": what, "count": len(paths), "first": paths[0]}
        for what, paths in (
            (SYSTEM, [path.relative_to(root).as_posix() for path in found.system]),
            (f"images without labels ({', '.join(layout.unlabelled)})", unlabelled),
        )
        if paths
    ]
    for one in left_out:
        logger.warning("left out: %(count)d %(what)s, the first is %(first)s", one)
    excluded = {path for entry in data.exclude for path in entry.among(files)}
    listed = sorted({*files} - excluded - {*unlabelled})
    known = known_files(root, layout, manifest)
    return file_table(listed, known, linked_files(manifest)), left_out
