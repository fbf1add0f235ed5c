"""Compares two evaluations on their common test images, by paired bootstrap tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.evaluation.record import certain
from decodiff_pipeline.metrics import bootstrap
from decodiff_pipeline.metrics.binned import unpack
from decodiff_pipeline.metrics.bootstrap import Difference, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from decodiff_pipeline.metrics.binned import Histograms

# Settings that must be equal for a comparison, with the default for files without them.
REQUIRED_EQUAL = {"protocol": "strict", "resolution": "model"}
VERDICTS = {True: "better", False: "worse", None: "no significant difference"}
BINS = "bins"  # a column that `binned.pack` makes

Row = dict[str, Any]


@dataclass(frozen=True)
class EarlierEvaluation:
    """An earlier evaluation that a new one is compared with."""

    name: str  # for readers
    record: pd.DataFrame | None = None  # ``evaluation_record``; ``None`` if missing
    metrics: Mapping[str, Any] | None = None  # ``metrics.json``; ``None`` if missing
    missing: str | None = None  # why one of the two is missing, in one sentence


@dataclass(frozen=True)
class _Pair:
    """Samples of both models for one category: the same images in the same order."""

    ours: Sample
    theirs: Sample
    counts: dict[str, int]
    notes: list[str]


def compare(
    record: pd.DataFrame, metrics: Mapping[str, Any], reference: EarlierEvaluation | None
) -> dict[str, Any]:
    """Compare an evaluation with an earlier one on their common test images.

    Images are matched by category and content (SHA-256); labels are those of the new evaluation.
    Pixel metrics of a category are skipped if the sizes of its maps or masks have changed, and
    the whole category if its region has changed.

    Args:
        metrics: The new ``metrics.json``; its ``confidence``, ``resamples`` and ``aupro_limit``
            are used.
        reference: The earlier evaluation; ``None`` if no comparison is wanted.

    Returns:
        JSON-ready: ``reference`` (its name or null); ``outcome``: ``none`` (not wanted),
        ``not_compared``, ``without_significance`` (only the earlier ``metrics.json`` exists:
        differences of whole test sets, without intervals) or ``compared``; ``notes``, sentences;
        ``categories`` and ``mean``: for each metric ``difference`` (new minus old), ``low``,
        ``high``, ``p_value``, ``verdict``; for each category the number of images in common and
        in one evaluation only.
    """
    if reference is None:
        return _result(None, "none")
    theirs = reference.metrics
    if theirs is None:
        return _result(reference.name, "not_compared", [reference.missing or "it has no metrics"])
    reason = _incomparable(metrics, theirs, reference.name)
    if reason is not None:
        return _result(reference.name, "not_compared", [reason])
    notes = _other_categories(metrics["categories"], theirs["categories"], reference.name)
    changed = _other_regions(metrics, theirs)
    notes += [f"{name} is not compared: what of its images counts was changed" for name in changed]
    categories = {
        name: entry for name, entry in metrics["categories"].items() if name not in changed
    }
    metrics = {**metrics, "categories": categories}
    if reference.record is None:
        notes = [f"{reference.missing}: differences are of the whole test sets, not tested", *notes]
        return _untested(metrics, theirs, reference.name, notes)
    pairs = {
        name: pair
        for name in sorted(set(metrics["categories"]) & set(reference.record["category"]))
        if (pair := _pair(name, record, reference.record)) is not None
    }
    if not pairs:
        reasons = notes if changed else ["the two have no test image in common"]
        return _result(reference.name, "not_compared", reasons)
    return _tested(pairs, metrics, reference.name, notes)


def _result(
    name: str | None, outcome: str, notes: Iterable[str] = (), **content: Any
) -> dict[str, Any]:
    result = {"reference": name, "outcome": outcome, "notes": list(notes)}
    return result | {"categories": {}, "mean": {}} | content


def _incomparable(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> str | None:
    """The reason why the two cannot be compared, in a sentence; ``None`` if they can."""
    for key, default in REQUIRED_EQUAL.items():
        here, there = ours.get(key, default), theirs.get(key, default)
        if here != there:
            return (
                f"{name} was measured with evaluation.{key} {there!r}, this with {here!r}: the "
                "figures cannot be compared"
            )
    others = theirs.get("categories", {})
    if not set(others) & set(ours["categories"]):
        return f"{name} was evaluated on other categories ({', '.join(sorted(others))})"
    return None


def _other_regions(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The common categories whose regions differ."""
    here, there = ours.get("regions") or {}, theirs.get("regions") or {}
    return [
        name
        for name in sorted({*here, *there} & {*ours["categories"]} & {*theirs["categories"]})
        if here.get(name, {}).get("sha256") != there.get(name, {}).get("sha256")
    ]


def _other_categories(ours: Iterable[str], theirs: Iterable[str], name: str) -> list[str]:
    here, there = set(ours), set(theirs)
    return [
        f"only {side} has the categories {', '.join(sorted(names))}"
        for side, names in (("this evaluation", here - there), (name, there - here))
        if names
    ]


def _untested(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str, notes: list[str]
) -> dict[str, Any]:
    same_limit = ours.get("aupro_limit") == theirs.get("aupro_limit")

    def differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> Row:
        return {
            metric: {"difference": new[metric] - old[metric], "verdict": None}
            for metric in bootstrap.METRICS
            if new.get(metric) is not None and old.get(metric) is not None
            if metric != "pixel_aupro" or same_limit
        }

    both = sorted(set(ours["categories"]) & set(theirs["categories"]))
    categories = {
        category: {
            "metrics": differences(ours["categories"][category], theirs["categories"][category])
        }
        for category in both
    }
    equal = set(both) == set(ours["categories"]) == set(theirs["categories"])
    mean = {"metrics": differences(ours.get("mean", {}), theirs.get("mean", {}) if equal else {})}
    return _result(name, "without_significance", notes, categories=categories, mean=mean)


def _tested(
    pairs: Mapping[str, _Pair], metrics: Mapping[str, Any], name: str, notes: list[str]
) -> dict[str, Any]:
    options = {
        "resamples": metrics.get("resamples", bootstrap.RESAMPLES),
        "confidence": metrics.get("confidence", bootstrap.CONFIDENCE),
        "limit": metrics["aupro_limit"],
    }
    categories = {}
    for category, pair in pairs.items():
        tested = bootstrap.mean_paired_differences([pair.ours], [pair.theirs], **options)
        categories[category] = {**pair.counts, "metrics": _rows(tested)}
        notes += [f"{category}: {note}" for note in pair.notes]
    mean = bootstrap.mean_paired_differences(
        [pair.ours for pair in pairs.values()], [pair.theirs for pair in pairs.values()], **options
    )
    return _result(
        name,
        "compared",
        notes,
        categories=categories,
        mean={"metrics": _rows(mean), "n_categories": len(pairs)},
        **options,
    )


def _rows(differences: Mapping[str, Difference | None]) -> Row:
    return {
        metric: {
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p_value": difference.p_value,
            "verdict": VERDICTS[difference.better],
        }
        for metric, difference in differences.items()
        if difference is not None
    }


def _pair(category: str, record: pd.DataFrame, reference: pd.DataFrame) -> _Pair | None:
    ours, theirs = _by_content(record, category), _by_content(reference, category)
    common = ours.index.intersection(theirs.index, sort=False)
    if common.empty:
        return None
    new, old = ours.loc[common], theirs.loc[common]
    counts = {
        "n_common": len(common),
        "n_new_only": len(ours) - len(common),
        "n_reference_only": len(theirs) - len(common),
    }
    notes = []
    if len(ours) != len(common) or len(theirs) != len(common):
        notes.append(
            f"the test set has changed, so the {len(common)} images in common are compared (this "
            f"evaluation has {len(ours)}, the other {len(theirs)})"
        )
    relabelled = int((new["label"] != old["label"]).sum())
    if relabelled:
        notes.append(f"{relabelled} images have another label now, which counts for both")
    histograms, note = _histograms(new, old)
    defective = (new["label"] == "defective").to_numpy()
    return _Pair(
        Sample(new["score"].to_numpy(), defective, histograms[0]),
        Sample(old["score"].to_numpy(), defective, histograms[1]),
        counts,
        notes + ([note] if note else []),
    )


def _by_content(record: pd.DataFrame, category: str) -> pd.DataFrame:
    """Test images of a category, indexed by digest and by number among equal files."""
    rows = certain(record, category)
    number = rows.groupby("sha256").cumcount()
    return rows.set_index(pd.MultiIndex.from_arrays([rows["sha256"], number]))


def _histograms(
    new: pd.DataFrame, old: pd.DataFrame
) -> tuple[tuple[Histograms | None, Histograms | None], str | None]:
    """Pixel histograms of both models if they count the same pixels; else a note."""
    if any(BINS not in rows or rows[BINS].isna().any() for rows in (new, old)):
        return (None, None), None
    ours, theirs = unpack(new), unpack(old)
    if not np.array_equal(ours.pixels(), theirs.pixels()):
        return (None, None), (
            "pixel metrics are not compared, since masks or maps are of other sizes than they were"
        )
    return (ours, theirs), None
