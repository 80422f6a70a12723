"""The gate: may a challenger take the champion's place? Decided on numbers, without MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clipgan.config import RegisterConfig
from clipgan.errors import RegistryError


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion: the difference, and the ends of its confidence interval."""

    difference: float
    low: float
    high: float


Entry = Mapping[str, Any]
"""One metric of one model version as a JSON tree: value, interval, protocol."""
CompareEntries = Callable[[Entry, Entry], Comparison | str]
"""Challenger's and champion's entry -> their difference, or why they cannot be compared."""


@dataclass(frozen=True)
class GateValue:
    """One metric of one model version: the number and the JSON tree it came from."""

    value: float
    entry: Entry


@dataclass(frozen=True)
class PromotionDecision:
    """What the gate said, in a sentence and in numbers.

    ``champion_version`` is the champion before the decision, None where there was none. ``metric``
    and ``value`` are None where no number was looked at (promotion by hand).
    """

    promoted: bool
    reason: str
    metric: str | None
    version: int
    value: float | None
    champion_version: int | None
    champion_value: float | None


def read_gate_value(evaluation: Mapping[str, Any], metric: str, source: str) -> GateValue:
    """The trained generator's value of ``metric`` in an evaluation (JSON tree).

    Raises:
        RegistryError: the metric is not there, skipped with a reason, or has no finite value.
    """
    trained = evaluation.get("trained")
    values = trained if isinstance(trained, Mapping) else {}
    entry = values.get(metric)
    if entry is None:
        skipped = evaluation.get("skipped", {}).get(metric)
        why = f"was not computed ({skipped})" if skipped else "is not in it"
        raise RegistryError(
            f"{source}: the gate's metric {metric!r} {why}; "
            f"set register.gate_metric to one of: {', '.join(values) or 'none'}"
        )
    return parse_gate_value(entry, f"{source}: {metric}")


def parse_gate_value(entry: Any, source: str) -> GateValue:
    """A ``{"value": ..., "protocol": {...}}`` entry.

    Raises:
        RegistryError: a part is missing or the value is no finite number.
    """
    value = entry.get("value") if isinstance(entry, Mapping) else None
    protocol = entry.get("protocol") if isinstance(entry, Mapping) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise RegistryError(f"{source} = {value!r} is no finite number; evaluate again")
    if not isinstance(protocol, Mapping):
        raise RegistryError(f"{source} has no protocol; evaluate again")
    return GateValue(float(value), entry)


def decide_promotion(
    config: RegisterConfig,
    *,
    version: int,
    challenger: GateValue,
    champion_version: int | None,
    champion: GateValue | None,
    compare: CompareEntries,
) -> PromotionDecision:
    """Compare the challenger with the champion under one protocol, by the interval, not the point.

    The first version is promoted; a champion is not compared with itself; values made under
    different protocols or without intervals, or a champion without a value of this metric, are
    never compared: the challenger is refused, and the reason says what differs. Otherwise the whole
    interval of the difference must lie on the better side, by at least ``min_improvement``.
    """
    metric = config.gate_metric

    def decide(promoted: bool, reason: str) -> PromotionDecision:
        return PromotionDecision(
            promoted=promoted,
            reason=reason,
            metric=metric,
            version=version,
            value=challenger.value,
            champion_version=champion_version,
            champion_value=None if champion is None else champion.value,
        )

    if champion_version is None:
        return decide(True, f"version {version} is the first: no champion to beat")
    if champion_version == version:
        return decide(False, f"version {version} is the champion already")
    by_hand = f"`clipgan promote {version}` promotes it by hand"
    if champion is None:
        return decide(
            False, f"champion version {champion_version} has no value of {metric}; {by_hand}"
        )
    found = compare(challenger.entry, champion.entry)
    if isinstance(found, str):
        return decide(
            False,
            f"version {version} and champion version {champion_version} were not evaluated alike "
            f"({found}); {by_hand}",
        )
    numbers = (
        f"{metric} {challenger.value:.4g} against {champion.value:.4g} of champion version "
        f"{champion_version} ({config.gate_direction} is better)"
    )
    promoted, words = _judge_gain(config, found)
    return decide(promoted, f"version {version} is {words}: {numbers}")


def _judge_gain(config: RegisterConfig, found: Comparison) -> tuple[bool, str]:
    """Whether the challenger wins, and how that is said."""
    if config.gate_direction == "lower":
        # 0 - x, because -0.0 is printed as such.
        gain, low, high = (0.0 - x for x in (found.difference, found.high, found.low))
    else:
        gain, low, high = found.difference, found.low, found.high
    interval = f"[{low:.4g}, {high:.4g}]"
    if gain < 0:
        return False, f"worse by {-gain:.4g}, gain {interval}"
    if gain == 0:
        return False, "no better"
    if low <= 0:
        return False, f"better by {gain:.4g}, but its interval {interval} holds 0"
    if low < config.min_improvement:
        return False, (
            f"better by only {gain:.4g} {interval}: the whole interval must be at least "
            f"{config.min_improvement:g}"
        )
    return True, f"better by {gain:.4g} {interval}"
