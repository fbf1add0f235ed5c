"""Runs the expectations on a manifest and returns the results as plain data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.pipelines.data_validation.tables import category_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig


DIGESTS = ("sha256", "pixels_sha256", "dhash")  # long, and no check reads them
RELATED = ("duplicate_of", "copy_of")  # columns that name another image


def run_checks(
    images: pd.DataFrame,
    files: pd.DataFrame,
    categories: Iterable[str] | None,
    config: ValidationConfig,
) -> list[dict[str, Any]]:
    """Runs every check.

    Returns:
        A dict a check: name, description, severity (error or warning), success, checked and
        failed (numbers of rows), offenders (dicts of category, path, related, detail).
    """
    context = _quiet_context()
    from decodiff_pipeline.pipelines.data_validation import expectations

    groups = category_table(images, categories)
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
            context, "categories", groups, expectations.category_expectations(config), "category"
        ),
    ]


def _quiet_context() -> Any:
    """Returns a context that leaves no files, sends nothing and draws no progress bars."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read while great_expectations is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # Its own default would leave a folder for documentation pages in /tmp at every run.
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
    """Validates one table and turns the result into plain dicts, in the suite's order."""
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
    return [_plain(results[one.meta["name"]], table, key) for one in expectations]


def _plain(result: Any, table: pd.DataFrame, key: str) -> dict[str, Any]:
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
    """Says which row failed and why; `related` is a second picture worth seeing."""
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
    """Returns ", below validation.min_side 32" where a value is; "" for a check without limits."""
    if limits is None:
        return ""
    value = row[limits["column"]]
    for word, limit in (("below", limits["low"]), ("above", limits["high"])):
        if limit is not None and (value < limit[1] if word == "below" else value > limit[1]):
            return f", {word} {limit[0]} {limit[1]}"
    return ""
