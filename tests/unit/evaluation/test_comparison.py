from __future__ import annotations

from clipgan.metrics.comparison import ModelComparison, compare_models, format_comparisons
from clipgan.metrics.values import MetricValue
from tests.metric_values import value_of


def compare(metric: str, a: MetricValue, b: MetricValue) -> ModelComparison:
    (found,) = compare_models({"b": {metric: b}, "a": {metric: a}, "real": {metric: b}}, "b")
    return found


def test_verdicts_follow_the_direction_of_the_metric() -> None:
    for metric, verdict in (("fd_x", "better"), ("clip_score", "worse")):
        found = compare(metric, value_of(metric, 1.0, 0.5), value_of(metric, 2.0, 0.5))
        assert found.paired is not None
        assert (found.paired.difference, found.verdict) == (-1.0, verdict)
        found = compare(metric, value_of(metric, 1.9, 0.5), value_of(metric, 2.0, 0.0))
        assert found.verdict == "no difference shown"


def test_unlike_protocols_are_refused_by_what_differs() -> None:
    found = compare("fd_x", value_of("fd_x", 1.0, 0.5), value_of("fd_x", 2.0, 0.5, seed=3))
    assert found.paired is None
    assert found.to_tree()["difference"] is None
    assert "cannot be compared: seed: 0 against 3" in found.refused


def test_lines_for_a_terminal() -> None:
    better = compare("fd_x", value_of("fd_x", 1.0, 0.5), value_of("fd_x", 2.0, 0.5))
    even = compare("fd_x", value_of("fd_x", 1.9, 0.5), value_of("fd_x", 2.0, 0.0))
    first, second = format_comparisons([better, even]).splitlines()
    assert first == "fd_x: a is better (-1 [-1, -1], p = 0) against b"
    assert second.startswith("fd_x: a shows no difference (-0.1 [")
