"""The verdict on a new version as a list of gates: pure functions of numbers."""

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
FINAL = frozenset({"serving files", "serving answers"})  # no reason overrides these


@dataclass(frozen=True)
class Gate:
    """One question and its answer."""

    name: str  # the question
    category: str  # one, ``"mean"`` over categories, or ``"all"`` for the model as a whole
    metric: str  # what was measured
    value: float | None  # of the challenger; ``None`` where it could not be measured
    # what it is held against, such as the champion's value or the nominal rate
    reference: float | None
    limit: float | None  # what the challenger may at most, or must at least, come to
    passed: bool  # the answer
    explanation: str  # the answer as a sentence
    interval: tuple[float, float] | None = None  # of the paired difference, where there is one


def judge(inputs: GateInputs, config: PromotionConfig) -> list[Gate]:
    """Ask every question of the configuration.

    A metric that the test images cannot give (no defects, no masks) stops nobody and its gate says
    so; that nothing at all can be measured does.

    Args:
        inputs: Of one run, on the current test images.

    Returns:
        All gates; where the version does not answer or its files are not the registered ones,
        nothing else is asked.
    """
    gates = [*_history(inputs, config), *_identity(inputs.serving)]
    if not all(gate.passed for gate in gates if gate.name in FINAL):
        return gates
    gates += _serving(inputs.serving, config.serving)
    gates += _floors(inputs, config)
    gates += _threshold_fits(inputs, config)
    gates += _false_positives(inputs, config.false_positive_significance)
    if inputs.baseline is not None:
        gates += _compared("PCA", inputs.baseline, config.baseline)
    if inputs.champion is not None:
        gates += _compared("champion", inputs.champion, config.champion)
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
            yield _unmeasured(name, ALL, metric, None, limit)
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
                yield _unmeasured("minimum", category, metric, None, limit)
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
        passed = fit.nominal <= limit + 1e-9  # 1 / 20 is 0.05
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
    for category, seen in sorted(inputs.false_positives.items()):
        chance = chance_of_as_many(seen)
        rate = seen.flagged / seen.good
        text = (
            f"{seen.flagged} of {seen.good} good images flagged, {seen.nominal:.3f} expected; "
            f"probability of as many by chance {chance:.3g}, at least {level:.2g} is asked"
        )
        yield Gate(
            "false-positive rate",
            category,
            "false_positive_rate",
            rate,
            seen.nominal,
            level,
            chance >= level,
            text,
        )


def chance_of_as_many(seen: FalsePositives) -> float:
    """Probability of at least as many flagged images where the nominal rate of the threshold holds.

    The rate of a threshold just above the k-th smallest of n calibration scores is itself random,
    Beta(n + 1 - k, k) for a continuous score, so the count is beta-binomial. A binomial test at
    the nominal rate would refuse good thresholds that were fitted to few images.

    Args:
        seen: Its ``nominal`` is (n + 1 - k) / (n + 1).

    Source: Vovk, "Conditional validity of inductive conformal predictors", 2012.
    """
    from scipy import stats

    total = seen.n_calibration + 1
    above = round(seen.nominal * total)
    if not 0 < above < total:
        return float(stats.binom.sf(seen.flagged - 1, seen.good, seen.nominal))
    return float(stats.betabinom.sf(seen.flagged - 1, seen.good, above, total - above))


def _compared(other: str, found: ModelComparison, limits: ComparisonGates) -> Iterator[Gate]:
    for category, pairs in sorted(found.categories.items()):
        for metric, allowed in limits.allowed(category).items():
            pair = pairs.get(metric)
            yield _loss(other, category, metric, pair, allowed, limits.within_noise)
    for metric, required in limits.improvement.items():
        yield _gain(other, metric, found.mean.get(metric), required, limits.within_noise)


def _loss(
    other: str,
    category: str,
    metric: str,
    pair: PairedDifference | None,
    allowed: float,
    noise: str,
) -> Gate:
    name = f"no loss against {other}"
    if pair is None:
        return _unmeasured(name, category, metric, None, 0 - allowed)
    if noise == "pass":
        passed = pair.difference >= -allowed or pair.high >= 0
        doubt = "within noise" if passed and pair.difference < -allowed else ""
    else:
        passed = pair.low >= -allowed
        doubt = "" if passed or pair.difference < -allowed else "cannot be excluded"
    text = f"{_described(pair)}; a loss of {allowed:.3f} is allowed{doubt and f', {doubt}'}"
    return _paired(name, category, metric, pair, 0 - allowed, passed, text)


def _gain(
    other: str, metric: str, pair: PairedDifference | None, required: float, noise: str
) -> Gate:
    name = f"gain over {other}"
    if pair is None:
        return _unmeasured(name, MEAN, metric, None, required)
    decisive = pair.difference if noise == "pass" else pair.low
    what = "difference" if noise == "pass" else "lower end"
    text = f"{_described(pair)}; the {what} must be at least {required:+.3f}"
    return _paired(name, MEAN, metric, pair, required, decisive >= required, text)


def _described(pair: PairedDifference) -> str:
    return (
        f"{pair.value:.3f} against {pair.other:.3f}, {pair.difference:+.3f} "
        f"[{pair.low:+.3f}, {pair.high:+.3f}]"
    )


def _paired(
    name: str,
    category: str,
    metric: str,
    pair: PairedDifference,
    limit: float,
    passed: bool,
    text: str,
) -> Gate:
    interval = (pair.low, pair.high)
    return Gate(name, category, metric, pair.value, pair.other, limit, passed, text, interval)


def _unmeasured(
    name: str, category: str, metric: str, reference: float | None, limit: float | None
) -> Gate:
    text = "not measured: the test images do not allow it"
    return Gate(name, category, metric, None, reference, limit, True, text)


def failed(gates: list[Gate]) -> list[Gate]:
    """The gates that were not passed."""
    return [gate for gate in gates if not gate.passed]


def can_be_overridden(gates: list[Gate]) -> bool:
    """Whether a reason may stand in for the gates that were not passed."""
    return not any(gate.name in FINAL for gate in failed(gates))


def as_rows(gates: list[Gate]) -> list[dict[str, Any]]:
    """The gates as JSON-ready rows."""
    return [asdict(gate) for gate in gates]
