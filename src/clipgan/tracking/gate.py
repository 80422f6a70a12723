"""The gate: may a challenger take the champion's place? Decided on numbers, without MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clipgan.config import RegisterConfig
from clipgan.errors import EvaluationError, RegistryError
from clipgan.metrics.comparison import Comparison, compare_values
from clipgan.metrics.evaluations import TRAINED, Evaluation
from clipgan.metrics.values import MetricValue

MeasureVersion = Callable[[int, MetricValue], Mapping[str, MetricValue] | str]
"""Measures a registered version again, on today's data and by the protocol of the given value.
Returns metric -> value, or a text that says why that cannot be done."""

_NO_START = (
    "there is no champion yet, and no value of the weights it started from (they were random, or "
    "evaluate.compare_initial is off)"
)


@dataclass(frozen=True)
class PromotionDecision:
    """Whether a version became champion, and why; ``champion_version`` is the champion before the
    decision, None where there was none."""

    promoted: bool
    reason: str
    champion_version: int | None


def find_gate_value(evaluation: Evaluation, metric: str, source: str) -> MetricValue:
    """The trained generator's value of ``metric``.

    Raises:
        RegistryError: the metric is not there, or was skipped with a reason.
    """
    values = evaluation.values.get(TRAINED, {})
    if metric not in values:
        skipped = evaluation.skipped.get(metric)
        why = f"was not computed ({skipped})" if skipped else "is not in it"
        raise RegistryError(
            f"{source}: the gate's metric {metric!r} {why}; "
            f"set register.gate_metric to one of: {', '.join(values) or 'none'}"
        )
    return values[metric]


def decide_promotion(
    config: RegisterConfig,
    *,
    version: int,
    challenger: MetricValue,
    start: MetricValue | None,
    champion_version: int | None,
    champion: MetricValue | str | None,
) -> PromotionDecision:
    """Compare the challenger with the champion under one protocol, by the interval, not the point.

    Without a champion it is compared with ``start``, the weights its training began with, unless
    ``register.first_version`` asks for nothing. A champion is not compared with itself; values
    made under different protocols or without intervals are never compared: the challenger is
    refused, and the reason says what differs. Otherwise the whole interval of the gain must lie
    above 0, by at least ``min_improvement``.

    Args:
        start: None where it was not evaluated, or the weights were random.
        champion: its value, or a text that says why it has none; None where there is no other
            champion.
    """
    is_first = champion_version is None
    if champion_version == version:
        promoted, reason = False, f"version {version} is the champion already"
    elif is_first and config.first_version == "always":
        promoted = True
        reason = f"version {version}: no champion to beat, and register.first_version is always"
    else:
        name = "the weights it started from" if is_first else f"champion version {champion_version}"
        other = champion or start or _NO_START
        verdict, reason = _judge(config, version, challenger, name=name, other=other)
        promoted = bool(verdict)
        if verdict is None or (is_first and not promoted):
            reason = f"{reason}; `clipgan promote {version}` makes it champion by hand"
    return PromotionDecision(promoted, reason, champion_version)


def _judge(
    config: RegisterConfig,
    version: int,
    challenger: MetricValue,
    *,
    name: str,
    other: MetricValue | str,
) -> tuple[bool | None, str]:
    """Whether the challenger beats another generator (None: not comparable), in a sentence too."""
    if not isinstance(other, MetricValue):
        return None, f"version {version} stays challenger: {other}"
    try:
        comparison = compare_values(challenger, other)
    except EvaluationError as error:
        return None, f"version {version} and {name} were not evaluated alike ({error})"
    promoted, words = _judge_gain(config, comparison)
    return promoted, (
        f"version {version} is {words}: {config.gate_metric} {challenger.value:.4g} against "
        f"{other.value:.4g} of {name} ({comparison.better} is better)"
    )


def _judge_gain(config: RegisterConfig, comparison: Comparison) -> tuple[bool, str]:
    """Whether the challenger wins, and the words for it."""
    gain, low, high = comparison.gain
    interval = f"[{low:.4g}, {high:.4g}]"
    if gain < 0:
        words = f"worse by {-gain:.4g}"
        if high < 0:
            return False, f"{words}, gain {interval}"
        return False, f"{words}, but the gain's interval {interval} holds 0: no difference shown"
    if gain == 0:
        return False, "no better"
    if low <= 0:
        words = f"better by {gain:.4g}"
        return False, f"{words}, but its interval {interval} holds 0: no difference shown"
    if low < config.min_improvement:
        return False, (
            f"better by only {gain:.4g} {interval}: the whole interval must be at least "
            f"{config.min_improvement:g}"
        )
    return True, f"better by {gain:.4g} {interval}"
