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
    """By how much the first of two values is the better one, and the ends of that gain's interval.

    The gain is positive where the first is better: ``better`` says whether those are the "lower" or
    the "higher" values, which belongs to the metric.
    """

    gain: float
    low: float
    high: float
    better: str


Entry = Mapping[str, Any]
"""One metric of one model version as a JSON tree: value, interval, protocol."""
CompareEntries = Callable[[Entry, Entry], Comparison | str]
"""Two entries -> what the first gains on the second, or why they cannot be compared."""
MeasureVersion = Callable[[int, Entry], Mapping[str, Entry] | str]
"""Measures a registered version again, on today's data and by the protocol of the given entry:
metric -> entry, or why that cannot be done."""


_NO_START = (
    "there is no champion yet, and no value of the weights it started from (they were random, or "
    "evaluate.compare_initial is off)"
)


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
    start: GateValue | None,
    champion_version: int | None,
    champion: GateValue | str | None,
    compare: CompareEntries,
) -> PromotionDecision:
    """Compare the challenger with the champion under one protocol, by the interval, not the point.

    Without a champion it is compared with ``start``, the weights its training began with, unless
    ``register.first_version`` asks for nothing. A champion is not compared with itself; values
    made under different protocols or without intervals are never compared: the challenger is
    refused, and the reason says what differs. Otherwise the whole interval of the gain must lie
    above 0, by at least ``min_improvement``.

    Args:
        start: None where it was not evaluated, or there were only random weights.
        champion: its value; why it has none (str); None where there is no other champion.
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
        verdict, reason = _judge(
            config, version, challenger, name=name, other=other, compare=compare
        )
        promoted = bool(verdict)
        if verdict is None or (is_first and not promoted):
            reason = f"{reason}; `clipgan promote {version}` makes it champion by hand"
    return PromotionDecision(
        promoted=promoted,
        reason=reason,
        metric=config.gate_metric,
        version=version,
        value=challenger.value,
        champion_version=champion_version,
        champion_value=champion.value if isinstance(champion, GateValue) else None,
    )


def _judge(
    config: RegisterConfig,
    version: int,
    challenger: GateValue,
    *,
    name: str,
    other: GateValue | str,
    compare: CompareEntries,
) -> tuple[bool | None, str]:
    """Whether the challenger beats another generator (None: not comparable), in a sentence too."""
    if not isinstance(other, GateValue):
        return None, f"version {version} stays challenger: {other}"
    found = compare(challenger.entry, other.entry)
    if isinstance(found, str):
        return None, f"version {version} and {name} were not evaluated alike ({found})"
    promoted, words = _judge_gain(config, found)
    return promoted, (
        f"version {version} is {words}: {config.gate_metric} {challenger.value:.4g} against "
        f"{other.value:.4g} of {name} ({found.better} is better)"
    )


def _judge_gain(config: RegisterConfig, found: Comparison) -> tuple[bool, str]:
    """Whether the challenger wins, and how that is said."""
    interval = f"[{found.low:.4g}, {found.high:.4g}]"
    if found.gain < 0:
        words = f"worse by {-found.gain:.4g}"
        if found.high < 0:
            return False, f"{words}, gain {interval}"
        return False, f"{words}, but the gain's interval {interval} holds 0: no difference shown"
    if found.gain == 0:
        return False, "no better"
    if found.low <= 0:
        words = f"better by {found.gain:.4g}"
        return False, f"{words}, but its interval {interval} holds 0: no difference shown"
    if found.low < config.min_improvement:
        return False, (
            f"better by only {found.gain:.4g} {interval}: the whole interval must be at least "
            f"{config.min_improvement:g}"
        )
    return True, f"better by {found.gain:.4g} {interval}"
