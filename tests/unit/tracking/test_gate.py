"""The gate's rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from clipgan.errors import RegistryError
from clipgan.tracking.gate import (
    Comparison,
    GateValue,
    PromotionDecision,
    decide_promotion,
    read_gate_value,
)
from tests.params import params_with

PROTOCOL = {"extractor": "lite0", "seed": 0}
HALF_WIDTH = 0.25


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison | str:
    if a["protocol"] != b["protocol"]:
        return f"seed: {a['protocol']['seed']} against {b['protocol']['seed']}"
    difference = a["value"] - b["value"]
    return Comparison(difference, difference - HALF_WIDTH, difference + HALF_WIDTH)


def value_of(number: float, protocol: Mapping[str, Any] = PROTOCOL) -> GateValue:
    return GateValue(number, {"value": number, "protocol": protocol})


def decide(
    challenger: float,
    champion: float | None,
    *,
    direction: str = "lower",
    margin: float = 0.0,
    champion_version: int | None = 1,
    champion_protocol: Mapping[str, Any] = PROTOCOL,
    version: int = 2,
) -> PromotionDecision:
    config = params_with(
        {
            "register.gate_direction": direction,
            "register.min_improvement": margin,
            "register.gate_metric": "fd",
        }
    ).register_model
    return decide_promotion(
        config,
        version=version,
        challenger=value_of(challenger),
        champion_version=champion_version,
        champion=None if champion is None else value_of(champion, champion_protocol),
        compare=compare,
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "direction", "margin", "promoted", "says"),
    [
        (1.0, 2.0, "lower", 0.0, True, "better by 1"),
        (2.0, 1.0, "lower", 0.0, False, "worse by 1"),
        (2.0, 1.0, "higher", 0.0, True, "better by 1"),
        (1.0, 2.0, "higher", 0.0, False, "worse by 1"),
        (1.0, 1.0, "lower", 0.0, False, "no better"),
        (1.25, 2.0, "lower", 0.5, True, "better by 0.75 [0.5, 1]"),
        (1.5, 2.0, "lower", 0.5, False, "by only 0.5 [0.25, 0.75]: the whole interval must be"),
        (1.875, 2.0, "lower", 0.0, False, "by 0.125, but its interval [-0.125, 0.375] holds 0"),
        (2.125, 2.0, "higher", 0.0, False, "by 0.125, but its interval [-0.125, 0.375] holds 0"),
        (1.75, 2.0, "lower", 0.0, False, "but its interval [0, 0.5] holds 0"),
    ],
)
def test_the_interval_decides(
    challenger: float, champion: float, direction: str, margin: float, promoted: bool, says: str
) -> None:
    decision = decide(challenger, champion, direction=direction, margin=margin)
    assert decision.promoted is promoted
    assert says in decision.reason
    assert (decision.value, decision.champion_value) == (challenger, champion)


def test_the_first_version_needs_no_number_to_beat() -> None:
    decision = decide(9e9, None, champion_version=None)
    assert decision.promoted
    assert "first" in decision.reason


def test_values_of_different_protocols_are_never_compared() -> None:
    decision = decide(0.0, 100.0, champion_protocol={**PROTOCOL, "seed": 1})
    assert not decision.promoted
    assert "seed: 0 against 1" in decision.reason
    assert "clipgan promote 2" in decision.reason


def test_a_champion_without_the_metric_is_not_beaten() -> None:
    decision = decide(0.0, None)
    assert not decision.promoted
    assert "no value of fd" in decision.reason


def test_a_champion_is_not_compared_with_itself() -> None:
    decision = decide(0.0, None, version=1)
    assert not decision.promoted
    assert "already" in decision.reason


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            {"trained": {"kid": {"value": 1.0, "protocol": {}}}},
            "set register.gate_metric to one of: kid",
        ),
        ({"trained": {}, "skipped": {"fd": "no weights"}}, r"was not computed \(no weights\)"),
        ({}, "none"),
        ({"trained": {"fd": {"value": float("nan"), "protocol": {}}}}, "no finite number"),
        ({"trained": {"fd": {"value": None, "protocol": {}}}}, "no finite number"),
        ({"trained": {"fd": {"value": 1.0}}}, "no protocol"),
        ({"trained": {"fd": 1.0}}, "no finite number"),
    ],
)
def test_an_evaluation_without_a_usable_value_is_refused(
    evaluation: dict[str, Any], message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        read_gate_value(evaluation, "fd", "evaluation.json")
