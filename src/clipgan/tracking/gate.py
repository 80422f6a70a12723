"""The gate: may a challenger take the champion's place? Decided on numbers, without MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clipgan.config import RegisterConfig
from clipgan.errors import RegistryError

FindDifference = Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]
"""Two protocols as JSON trees -> the first difference in words, None where they agree."""


@dataclass(frozen=True)
class GateValue:
    """One metric of one model version: the number and the protocol (JSON tree) that made it."""

    value: float
    protocol: Mapping[str, Any]


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
    return GateValue(float(value), protocol)


def decide_promotion(
    config: RegisterConfig,
    *,
    version: int,
    challenger: GateValue,
    champion_version: int | None,
    champion: GateValue | None,
    find_difference: FindDifference,
) -> PromotionDecision:
    """Compare the challenger with the champion under one protocol.

    The first version is promoted; a champion is not compared with itself; values made under
    different protocols, or a champion without a value of this metric, are never compared: the
    challenger is refused, and the reason says what differs. Otherwise the challenger must be better
    by more than nothing and by at least ``min_improvement``.
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
    difference = find_difference(challenger.protocol, champion.protocol)
    if difference is not None:
        return decide(
            False,
            f"version {version} and champion version {champion_version} were not evaluated alike "
            f"({difference}); {by_hand}",
        )
    gain = champion.value - challenger.value
    if config.gate_direction == "higher":
        gain = -gain
    numbers = (
        f"{metric} {challenger.value:.4g} against {champion.value:.4g} of champion version "
        f"{champion_version} ({config.gate_direction} is better)"
    )
    if gain > 0 and gain >= config.min_improvement:
        return decide(True, f"version {version} is better by {gain:.4g}: {numbers}")
    if gain > 0:
        needed = f"better by only {gain:.4g}, {config.min_improvement:g} are needed"
    else:
        needed = "no better" if gain == 0 else f"worse by {-gain:.4g}"
    return decide(False, f"version {version} is {needed}: {numbers}")
