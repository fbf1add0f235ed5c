"""The gates of the promotion: pure functions of measured numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.registry.model_comparison import RECALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from decodiff_pipeline.registry.config import (
        ComparisonGates,
        PromotionConfig,
        ServingGates,
    )
    from decodiff_pipeline.registry.model_comparison import (
        FalsePositives,
        GateInputs,
        ModelComparison,
        PairedDifference,
    )
    from decodiff_pipeline.serving.serving_check import ServingResult

MEAN = "mean"
ALL = "all"
FINAL = frozenset({"serving files", "serving answers"})  # cannot be overridden


@dataclass(frozen=True)
class Gate:
    """A condition on the challenger and its result."""

    name: str
    category: str  # a category, ``"mean"`` over categories, or ``"all"`` for the model
    metric: str
    value: float | None  # of the challenger; ``None`` if it cannot be measured
    reference: float | None  # value to compare with, such as the champion's or the nominal rate
    limit: float | None  # smallest or largest allowed value
    passed: bool
    explanation: str  # the result as a sentence
    interval: tuple[float, float] | None = None  # of the paired difference, if there is one


def judge(inputs: GateInputs, config: PromotionConfig) -> list[Gate]:
    """Evaluate every gate of the configuration.

    A metric that cannot be measured on the test images (no defects, no masks) passes its gate,
    with an explanation. If no metric can be measured, the gate ``evidence`` fails.

    Returns:
        All gates. If the version does not answer, or its files differ from the registered ones,
        only the gates before the measurements.
    """
    gates = [*_history(inputs, config), *_identity(inputs.serving)]
    if not all(gate.passed for gate in gates if gate.name in FINAL):
        return gates
    gates += _serving(inputs.serving, config.serving)
    gates += _floors(inputs, config)
    gates += _threshold_fits(inputs, config)
    gates += _false_positives(inputs, config.false_positive_significance)
    if inputs.baseline is not None:
        gates += _comparison("PCA", inputs.baseline, config.baseline)
    if inputs.champion is not None:
        gates += _comparison("champion", inputs.champion, config.champion)
    return gates


def _history(inputs: GateInputs, config: PromotionConfig) -> Iterator[Gate]:
    if inputs.rolled_back is not None:
        text = f"this version was rolled back: {inputs.rolled_back}"
        yield Gate("not rolled back", ALL, "rollback", None, None, None, False, text)
    for category in inputs.lost:
        passed = category in config.may_lose
        text = "the champion knows this category and the challenger does not; " + (
            "may_lose allows it" if passed else "name it in promotion.may_lose if that is meant"
        )
        yield Gate("category kept", category, "known", None, None, None, passed, text)
    if inputs.champion_error is not None:
        passed = config.unloadable_champion == "judge_alone"
        text = f"the champion cannot be loaded ({inputs.champion_error}); " + (
            "judged without it"
            if passed
            else "it stays until it can be compared with; restore its files, or set "
            "promotion.unloadable_champion=judge_alone"
        )
        yield Gate("champion loads", ALL, "loads", None, None, None, passed, text)


def _identity(serving: ServingResult) -> Iterator[Gate]:
    files = serving.files_as_registered
    if files is not None:
        text = f"the SHA-256 of the files is {'' if files else 'not '}that of the version's tags"
        yield Gate("serving files", ALL, "sha256", None, None, None, files, text)
    if files is not False:
        text = serving.error or "a fresh process loads it from the registry, and it answers"
        passed = serving.error is None
        yield Gate("serving answers", ALL, "answers", None, None, None, passed, text)


def _serving(serving: ServingResult, limits: ServingGates) -> Iterator[Gate]:
    measured: list[tuple[str, str, float | None, float | None, str]] = [
        ("serving scores", "score", serving.largest_error, limits.tolerance, "{} from evaluation"),
        ("latency", "ms", serving.latency_ms, limits.latency_ms, "{} ms an image (median)"),
        ("size", "MB", serving.size_mb, limits.size_mb, "{} MB"),
    ]
    for name, metric, value, limit, phrase in measured:
        if value is None:
            yield _unmeasured(name, ALL, metric, limit)
            continue
        passed = limit is None or value <= limit
        bound = "no limit is set" if limit is None else f"at most {limit:g} are allowed"
        text = f"{phrase.format(f'{value:.3g}')}; {bound}"
        yield Gate(name, ALL, metric, value, None, limit, passed, text)


def _floors(inputs: GateInputs, config: PromotionConfig) -> Iterator[Gate]:
    measured = False
    for category, metrics in sorted(inputs.metrics.items()):
        measured |= any(metrics[name] is not None for name in metrics if name != RECALL)
        for metric, limit in config.least(category).items():
            value = metrics.get(metric)
            if value is None:
                yield _unmeasured("minimum", category, metric, limit)
                continue
            text = f"{value:.3f}; at least {limit:.3f} is asked"
            yield Gate("minimum", category, metric, value, None, limit, value >= limit, text)
    if not measured:
        text = "no category has good and defective test images, so nothing can be measured"
        yield Gate("evidence", ALL, "any", None, None, None, False, text)


def _threshold_fits(inputs: GateInputs, config: PromotionConfig) -> Iterator[Gate]:
    least = config.min_calibration_images
    for category, fit in sorted(inputs.thresholds.items()):
        n = fit.n_calibration
        text = f"the threshold is fitted to {n} good images; at least {least} are asked"
        yield Gate("calibration", category, "images", n, None, least, n >= least, text)
        limit = config.false_positive_rate or fit.target
        if fit.nominal is None or limit is None:
            continue
        passed = fit.nominal <= limit + 1e-9  # tolerates rounding, as of 1 / 20 and 0.05
        text = (
            f"{n} calibration images hold a false-positive rate of {fit.nominal:.3f} at best; "
            f"at most {limit:.3f} is asked"
        )
        if not passed:
            text += (
                f", for which {math.ceil(1 / limit - 1 - 1e-9)} images are needed, or a larger "
                "promotion.false_positive_rate"
            )
        metric = "false_positive_rate"
        yield Gate("target rate", category, metric, fit.nominal, fit.target, limit, passed, text)


def _false_positives(inputs: GateInputs, significance: float) -> Iterator[Gate]:
    level = significance / max(1, len(inputs.false_positives))
    for category, counts in sorted(inputs.false_positives.items()):
        p_value = chance_of_as_many(counts)
        rate = counts.flagged / counts.good
        text = (
            f"{counts.flagged} of {counts.good} good images flagged, {counts.nominal:.3f} "
            f"expected; probability of as many by chance {p_value:.3g}, at least {level:.2g} is "
            "asked"
        )
        name, metric, passed = "false-positive rate", "false_positive_rate", p_value >= level
        yield Gate(name, category, metric, rate, counts.nominal, level, passed, text)


def chance_of_as_many(counts: FalsePositives) -> float:
    """p-value of the false positives: probability of at least as many at the nominal rate.

    The false-positive rate of a threshold just above the k-th smallest of n calibration scores is
    itself random, Beta(n + 1 - k, k) for a continuous score, so the count is beta-binomial. A
    binomial test at the nominal rate would refuse good thresholds that were fitted to few images.

    Args:
        counts: Counts whose ``nominal`` is (n + 1 - k) / (n + 1).

    Source: Vovk, "Conditional validity of inductive conformal predictors", 2012.
    """
    from scipy import stats

    total = counts.n_calibration + 1
    above = round(counts.nominal * total)
    if not 0 < above < total:
        return float(stats.binom.sf(counts.flagged - 1, counts.good, counts.nominal))
    return float(stats.betabinom.sf(counts.flagged - 1, counts.good, above, total - above))


def _comparison(other: str, comparison: ModelComparison, limits: ComparisonGates) -> Iterator[Gate]:
    for category, pairs in sorted(comparison.categories.items()):
        for metric, allowed in limits.allowed(category).items():
            name, pair, limit = f"no loss against {other}", pairs.get(metric), 0 - allowed
            if pair is None:
                yield _unmeasured(name, category, metric, limit)
            else:
                yield _paired(name, category, metric, pair, limit, *_loss(pair, allowed, limits))
    for metric, required in limits.improvement.items():
        name, pair = f"gain over {other}", comparison.mean.get(metric)
        if pair is None:
            yield _unmeasured(name, MEAN, metric, required)
        else:
            yield _paired(name, MEAN, metric, pair, required, *_gain(pair, required, limits))


def _loss(pair: PairedDifference, allowed: float, limits: ComparisonGates) -> tuple[bool, str]:
    excessive = pair.difference < -allowed
    if limits.within_noise == "pass":
        passed = not excessive or pair.high >= 0
        note = ", within noise" if passed and excessive else ""
    else:
        passed = pair.low >= -allowed
        note = "" if passed or excessive else ", cannot be excluded"
    return passed, f"a loss of {allowed:.3f} is allowed{note}"


def _gain(pair: PairedDifference, required: float, limits: ComparisonGates) -> tuple[bool, str]:
    if limits.within_noise == "pass":
        return pair.difference >= required, f"the difference must be at least {required:+.3f}"
    return pair.low >= required, f"the lower end must be at least {required:+.3f}"


def _paired(
    name: str,
    category: str,
    metric: str,
    pair: PairedDifference,
    limit: float,
    passed: bool,
    condition: str,
) -> Gate:
    interval = (pair.low, pair.high)
    text = (
        f"{pair.value:.3f} against {pair.other:.3f}, {pair.difference:+.3f} "
        f"[{pair.low:+.3f}, {pair.high:+.3f}]; {condition}"
    )
    return Gate(name, category, metric, pair.value, pair.other, limit, passed, text, interval)


def _unmeasured(name: str, category: str, metric: str, limit: float | None) -> Gate:
    text = "not measured: the test images do not allow it"
    return Gate(name, category, metric, None, None, limit, True, text)


def failed(gates: list[Gate]) -> list[Gate]:
    """The gates that did not pass."""
    return [gate for gate in gates if not gate.passed]


def can_be_overridden(gates: list[Gate]) -> bool:
    """Whether a reason may override the failed gates."""
    return not any(gate.name in FINAL for gate in failed(gates))


def as_rows(gates: list[Gate]) -> list[dict[str, Any]]:
    """The gates as JSON values."""
    return [asdict(gate) for gate in gates]
