"""Runs the checks with Great Expectations and returns the results as JSON values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.pipelines.data_validation.tables import category_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig


DIGESTS = ("sha256", "pixels_sha256", "dhash")  # columns that no check reads; they use memory
RELATED = ("duplicate_of", "copy_of")  # suffixes of columns with the path of another image


def run_checks(
    images: pd.DataFrame,
    files: pd.DataFrame,
    categories: Iterable[str] | None,
    config: ValidationConfig,
) -> list[dict[str, Any]]:
    """Run every check.

    Args:
        images: See `tables.image_table`.
        files: See `tables.file_table`.
        categories: Expected categories; None for those of the images.

    Returns:
        A dict per check: ``name``, ``description``, ``severity`` (error or warning), ``success``,
        ``checked`` and ``failed`` (numbers of rows), and ``offenders``, the failed rows as dicts of
        ``category``, ``path``, ``related`` (path of the mask or duplicate) and ``detail``.
    """
    context = _ephemeral_context()
    from decodiff_pipeline.pipelines.data_validation import expectations

    category_counts = category_table(images, categories)
    return [
        *_evaluate(context, "files", files, expectations.file_expectations(), "path"),
        *_evaluate(
            context,
            "images",
            images.drop(columns=[*DIGESTS]),
            expectations.image_expectations(config),
            "path",
        ),
        *_evaluate(
            context,
            "categories",
            category_counts,
            expectations.category_expectations(config),
            "category",
        ),
    ]


def _ephemeral_context() -> Any:
    """A context without files, analytics and progress bars."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # great_expectations reads it at import
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # By default each context leaves a temporary folder for documentation pages.
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    config = DataContextConfig(
        store_backend_defaults=stores,
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _evaluate(
    context: Any, name: str, table: pd.DataFrame, expectations: list[Any], key: str
) -> list[dict[str, Any]]:
    """Validate a table; returns the results in the order of the expectations."""
    import great_expectations as gx

    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": table})
    suite = gx.ExpectationSuite(name=name)
    for expectation in expectations:
        suite.add_expectation(expectation)
    outcome = batch.validate(
        suite,
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]},
    )
    results = {result.expectation_config.meta["name"]: result for result in outcome.results}
    return [_as_dict(results[expectation.meta["name"]], table, key) for expectation in expectations]


def _as_dict(result: Any, table: pd.DataFrame, key: str) -> dict[str, Any]:
    meta = result.expectation_config.meta
    outcome = result.result
    if "element_count" not in outcome:
        raise RuntimeError(f"the check {meta['name']} did not run: {result.exception_info}")
    keys = [entry[key] for entry in outcome.get("unexpected_index_list") or []]
    rows = table[table[key].isin(keys)].drop_duplicates(key).set_index(key, drop=False)
    return {
        "name": meta["name"],
        "description": meta["description"],
        "severity": meta["severity"],
        "success": bool(result.success),
        "checked": int(outcome["element_count"]),
        "failed": int(outcome["unexpected_count"]),
        "offenders": [_offender(rows.loc[name], meta) for name in keys],
    }


def _offender(row: pd.Series, meta: Mapping[str, Any]) -> dict[str, str]:
    """A failed row as in `run_checks`."""
    columns = meta["columns"]
    related = next((row[name] for name in columns if name.endswith(RELATED)), "")
    if any(name.startswith("mask_") for name in columns):
        related = row["mask_path"]
    details = [
        str(row[c]) if c.endswith(("error", "beside")) else f"{c.replace('_', ' ')} {row[c]}"
        for c in columns
    ]
    if meta["detail"]:
        details = [meta["detail"].format_map(row)]
    return {
        "category": str(row["category"]),
        "path": str(row["path"]) if "path" in row else "",
        "related": related if isinstance(related, str) else "",  # missing: None or NaN
        "detail": ", ".join(details) + _limit(row, meta["limits"]),
    }


def _limit(row: pd.Series, limits: Mapping[str, Any] | None) -> str:
    """The violated limit, such as ", below validation.min_side 32"; "" for a check without one."""
    if limits is None:
        return ""
    value = row[limits["column"]]
    for word, limit in (("below", limits["low"]), ("above", limits["high"])):
        if limit is not None and (value < limit[1] if word == "below" else value > limit[1]):
            return f", {word} {limit[0]} {limit[1]}"
    return ""
