"""The gate's rules."""

from __future__ import annotations

import pytest
from scipy import stats

from clipgan.errors import RegistryError
from clipgan.metrics.evaluations import Evaluation
from clipgan.metrics.values import MetricValue
from clipgan.tracking.gate import PromotionDecision, decide_promotion, find_gate_value
from tests.metric_values import value_of
from tests.params import params_with

HALF_WIDTH = 0.25
# Three subsets that lie this far apart give an interval of that half width.
SPREAD = HALF_WIDTH / (float(stats.t.ppf(0.975, 2)) * (4 / 3) ** 0.5)


def decide(
    challenger: float,
    champion: float | str | None,
    *,
    margin: float = 0.0,
    champion_version: int | None = 1,
    other_seed: int = 0,
    version: int = 2,
    start: float | None = None,
    first_version: str = "beat_start",
) -> PromotionDecision:
    config = params_with(
        {
            "register.first_version": first_version,
            "register.min_improvement": margin,
            "register.gate_metric": "fd",
        }
    ).register_model

    def other(number: float) -> MetricValue:
        return value_of("fd", number, seed=other_seed)

    return decide_promotion(
        config,
        version=version,
        challenger=value_of("fd", challenger, SPREAD),
        start=None if start is None else other(start),
        champion_version=champion_version,
        champion=other(champion) if isinstance(champion, float) else champion,
    )


CASES = [
    (1.0, 2.0, 0.0, True, "better by 1 [0.75, 1.25]"),
    (2.0, 1.0, 0.0, False, "worse by 1, gain [-1.25, -0.75]: "),
    (2.125, 2.0, 0.0, False, "interval [-0.375, 0.125] holds 0: no difference shown"),
    (1.0, 1.0, 0.0, False, "no better"),
    (1.125, 2.0, 0.5, True, "better by 0.875 [0.625, 1.125]"),
    (1.5, 2.0, 0.5, False, "by only 0.5 [0.25, 0.75]: the whole interval must be"),
    (1.875, 2.0, 0.0, False, "by 0.125, but its interval [-0.125, 0.375] holds 0"),
    (1.76, 2.0, 0.0, False, "but its interval [-0.01, 0.49] holds 0"),
]


@pytest.mark.parametrize(("challenger", "champion", "margin", "promoted", "says"), CASES)
def test_the_interval_decides(
    challenger: float, champion: float, margin: float, promoted: bool, says: str
) -> None:
    decision = decide(challenger, champion, margin=margin)
    assert decision.promoted is promoted
    assert says in decision.reason
    assert "of champion version 1 (lower is better)" in decision.reason
    assert f"fd {challenger:.4g} against {champion:.4g} of" in decision.reason


@pytest.mark.parametrize(("challenger", "start", "margin", "promoted", "says"), CASES)
def test_without_a_champion_the_weights_it_started_from_are_to_beat(
    challenger: float, start: float, margin: float, promoted: bool, says: str
) -> None:
    decision = decide(challenger, None, start=start, margin=margin, champion_version=None)
    assert decision.promoted is promoted
    assert says in decision.reason
    assert "of the weights it started from" in decision.reason
    assert ("`clipgan promote 2` makes it champion by hand" in decision.reason) is not promoted
    assert decision.champion_version is None


def test_a_first_version_whose_start_was_not_measured_stays_challenger() -> None:
    decision = decide(0.0, None, champion_version=None)
    assert not decision.promoted
    assert decision.reason.startswith("version 2 stays challenger: there is no champion yet, and")
    assert "`clipgan promote 2` makes it champion by hand" in decision.reason


def test_a_start_of_another_protocol_is_not_beaten() -> None:
    decision = decide(0.0, None, start=9.0, champion_version=None, other_seed=1)
    assert not decision.promoted
    assert "seed: 0 against 1" in decision.reason


def test_a_first_version_may_be_let_through() -> None:
    decision = decide(9e9, None, start=0.0, champion_version=None, first_version="always")
    assert decision.promoted
    assert "register.first_version is always" in decision.reason
    assert not decide(9e9, 1.0, first_version="always").promoted, "a champion is still to beat"


def test_values_of_different_protocols_are_never_compared() -> None:
    decision = decide(0.0, 100.0, other_seed=1)
    assert not decision.promoted
    assert "seed: 0 against 1" in decision.reason
    assert "clipgan promote 2" in decision.reason


def test_a_champion_without_the_metric_is_not_beaten() -> None:
    decision = decide(0.0, "version 1 has no value of fd")
    assert not decision.promoted
    assert "no value of fd" in decision.reason
    assert "clipgan promote 2" in decision.reason


def test_a_champion_is_not_compared_with_itself() -> None:
    decision = decide(0.0, None, version=1, start=5.0)
    assert not decision.promoted
    assert "already" in decision.reason


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            Evaluation({"trained": {"kid": value_of("kid", 1.0)}}),
            "set register.gate_metric to one of: kid",
        ),
        (Evaluation({"trained": {}}, {"fd": "no weights"}), r"was not computed \(no weights\)"),
        (Evaluation({}), "none"),
    ],
)
def test_an_evaluation_without_the_value_is_refused(evaluation: Evaluation, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        find_gate_value(evaluation, "fd", "evaluation.json")
