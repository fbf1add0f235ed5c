"""Whether a model is better than another on the same images, category by category."""

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

# Results that differ in one of these are of different things; with what a file without it means.
SAME = {"protocol": "strict", "resolution": "model"}
VERDICTS = {True: "better", False: "worse", None: "no significant difference"}
BINS = "bins"  # a column that `binned.pack` makes

Row = dict[str, Any]


@dataclass(frozen=True)
class EarlierEvaluation:
    """What a new evaluation is compared with."""

    name: str  # whose it is, for readers
    record: pd.DataFrame | None = None  # its ``evaluation_record``; ``None`` where there is none
    metrics: Mapping[str, Any] | None = None  # its ``metrics.json``; ``None`` where there is none
    missing: str | None = None  # why one of the two is missing, in one sentence


@dataclass(frozen=True)
class _Pair:
    """One category as both models scored it: samples of the same images in the same order."""

    ours: Sample
    theirs: Sample
    counts: dict[str, int]
    notes: list[str]


def compare(
    record: pd.DataFrame, metrics: Mapping[str, Any], reference: EarlierEvaluation | None
) -> dict[str, Any]:
    """Compare an evaluation with an earlier one on the test images that both have.

    Images are the same if category and content (SHA-256) are. Whether they are defective is as
    the new evaluation says. Pixel metrics are left out of a category where the maps or the masks
    of an image have other sizes, and a category where another part of its images counts.

    Args:
        metrics: The new ``metrics.json``; its ``confidence``, ``resamples`` and ``aupro_limit``
            hold for the comparison.
        reference: The earlier evaluation; ``None`` where none was asked for.

    Returns:
        JSON-ready: ``reference`` (its name or null); ``outcome``: ``none`` (not asked for),
        ``not_compared``, ``without_significance`` (of the earlier one only ``metrics.json`` is
        there: differences of whole test sets, without intervals) or ``compared``; ``notes``, a
        sentence each; ``categories`` and ``mean``, for each metric ``difference`` (new minus
        old), ``low``, ``high``, ``p_value``, ``verdict``, and for each category how many images
        are in common and only on one side.
    """
    if reference is None:
        return _result(None, "none")
    theirs = reference.metrics
    if theirs is None:
        return _result(reference.name, "not_compared", [reference.missing or "it has no metrics"])
    reason = _obstacle(metrics, theirs, reference.name)
    if reason is not None:
        return _result(reference.name, "not_compared", [reason])
    notes = _other_categories(metrics["categories"], theirs["categories"], reference.name)
    changed = _other_regions(metrics, theirs)
    notes += [f"{name} is not compared: what of its images counts was changed" for name in changed]
    metrics = {**metrics, "categories": _without(metrics["categories"], changed)}
    if reference.record is None:
        notes = [f"{reference.missing}: differences are of the whole test sets, not tested", *notes]
        return _of_figures(metrics, theirs, reference.name, notes)
    pairs = {
        name: pair
        for name in sorted(set(metrics["categories"]) & set(reference.record["category"]))
        if (pair := _pair(name, record, reference.record)) is not None
    }
    if not pairs:
        reasons = notes if changed else ["the two have no test image in common"]
        return _result(reference.name, "not_compared", reasons)
    return _of_images(pairs, metrics, reference.name, notes)


def _result(
    name: str | None, outcome: str, notes: Iterable[str] = (), **content: Any
) -> dict[str, Any]:
    result = {"reference": name, "outcome": outcome, "notes": list(notes)}
    return result | {"categories": {}, "mean": {}} | content


def _obstacle(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> str | None:
    """Why there is nothing to compare, in a sentence."""
    for key, default in SAME.items():
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
    """Categories that both have, with another region, or with one alone."""
    here, there = ours.get("regions") or {}, theirs.get("regions") or {}
    return [
        name
        for name in sorted({*here, *there} & {*ours["categories"]} & {*theirs["categories"]})
        if here.get(name, {}).get("sha256") != there.get(name, {}).get("sha256")
    ]


def _without(categories: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: entry for name, entry in categories.items() if name not in names}


def _other_categories(ours: Iterable[str], theirs: Iterable[str], name: str) -> list[str]:
    here, there = set(ours), set(theirs)
    return [
        f"only {side} has the categories {', '.join(sorted(names))}"
        for side, names in (("this evaluation", here - there), (name, there - here))
        if names
    ]


def _of_figures(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str, notes: list[str]
) -> dict[str, Any]:
    """Differences of published figures, where there are no images to test them on."""
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
    whole = set(both) == set(ours["categories"]) == set(theirs["categories"])
    mean = {"metrics": differences(ours.get("mean", {}), theirs.get("mean", {}) if whole else {})}
    return _result(name, "without_significance", notes, categories=categories, mean=mean)


def _of_images(
    pairs: Mapping[str, _Pair], metrics: Mapping[str, Any], name: str, notes: list[str]
) -> dict[str, Any]:
    options = {
        "resamples": metrics.get("resamples", bootstrap.RESAMPLES),
        "confidence": metrics.get("confidence", bootstrap.CONFIDENCE),
        "limit": metrics["aupro_limit"],
    }
    categories = {}
    for category, pair in pairs.items():
        found = bootstrap.mean_paired_differences([pair.ours], [pair.theirs], **options)
        categories[category] = {**pair.counts, "metrics": _rows(found)}
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


def _rows(found: Mapping[str, Difference | None]) -> Row:
    return {
        metric: {
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p_value": difference.p_value,
            "verdict": VERDICTS[difference.better],
        }
        for metric, difference in found.items()
        if difference is not None
    }


def _pair(category: str, record: pd.DataFrame, reference: pd.DataFrame) -> _Pair | None:
    ours, theirs = _judged(record, category), _judged(reference, category)
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


def _judged(record: pd.DataFrame, category: str) -> pd.DataFrame:
    """Test images of a category by content; of equal files the first, the second and so on."""
    rows = certain(record, category)
    number = rows.groupby("sha256").cumcount()
    return rows.set_index(pd.MultiIndex.from_arrays([rows["sha256"], number]))


def _histograms(
    new: pd.DataFrame, old: pd.DataFrame
) -> tuple[tuple[Histograms | None, Histograms | None], str | None]:
    """Pixel histograms of both models, if they are of the same pixels."""
    if any(BINS not in rows or rows[BINS].isna().any() for rows in (new, old)):
        return (None, None), None
    ours, theirs = unpack(new), unpack(old)
    for name in ("free", "defective"):
        if not np.array_equal(getattr(ours, name).sum(1), getattr(theirs, name).sum(1)):
            return (None, None), (
                "pixel metrics are not compared, since masks or maps are of other sizes than "
                "they were"
            )
    return (ours, theirs), None
