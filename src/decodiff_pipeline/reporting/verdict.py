"""What an evaluation has found, in two sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.metrics.summary import COMPARED, METRICS, beats, measured
from decodiff_pipeline.reporting.formatting import number, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

PROSE = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP"}


def verdict(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """The figures against the PCA baseline, and against the model that it was compared with.

    Args:
        metrics: The content of ``metrics.json``.
        comparison: The content of ``comparison.json``, or nothing.
    """
    mean, names = metrics.get("mean") or {}, metrics["categories"]
    shown = [name for name in COMPARED if name in measured(metrics)]
    figures = " and ".join(f"{PROSE[name]} {number(mean.get(name))}" for name in shown)
    over = f", mean of {len(names)} categories" if len(names) > 1 else ""
    return f"{figures[:1].upper()}{figures[1:]}{over}{_beside_pca(metrics)}.{_change(comparison)}"


def _beside_pca(metrics: Mapping[str, Any]) -> str:
    baseline = (metrics.get("baseline") or {}).get("pca") or {}
    found = [
        [beats(row.get(name), (baseline.get(category) or {}).get(name)) for name in COMPARED]
        for category, row in metrics["categories"].items()
    ]
    known = [row for row in found if any(one is not None for one in row)]
    above = sum(False not in row for row in known)
    if not known:
        return ""
    if len(known) == 1:
        return f", {'above' if above else 'not above'} the PCA baseline"
    return f"; {above} of {len(known)} categories are above the PCA baseline"


def _change(comparison: Mapping[str, Any]) -> str:
    changes = (comparison.get("mean") or {}).get("metrics") or {}
    told = [
        f"{METRICS[name]} {changes[name]['verdict']} ({signed(changes[name]['difference'])})"
        for name in COMPARED
        if (changes.get(name) or {}).get("verdict")
    ]
    return f" Against {comparison['reference']}: {', '.join(told)}." if told else ""
