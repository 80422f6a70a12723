"""The paired comparison of two values, and of models with one baseline, metric by metric.

Values that were measured on the same captions, latents and groups compare group by group, which
cancels what both share. Values of different protocols do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipgan.errors import EvaluationError
from clipgan.metrics.intervals import compute_bounds
from clipgan.metrics.values import Better, MetricValue, find_difference

REAL = "real"
"""Real images in a model's place: no model, and compared with none."""
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """The first value minus the second, its interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    better: Better

    @property
    def gain(self) -> tuple[float, float, float]:
        """By how much the first value is the better one, and the ends of that gain's interval."""
        if self.better == "lower":
            # 0 - x, because -0.0 is printed as such.
            return 0.0 - self.difference, 0.0 - self.high, 0.0 - self.low
        return self.difference, self.low, self.high

    @property
    def verdict(self) -> str:
        """Better, worse, or no difference shown, where the interval holds 0."""
        _, low, high = self.gain
        if low <= 0 <= high:
            return NO_DIFFERENCE
        return BETTER if low > 0 else WORSE


def compare_values(a: MetricValue, b: MetricValue) -> Comparison:
    """``a`` minus ``b``, paired by the groups that both share.

    Raises:
        EvaluationError: the protocols differ, which names every field that does, with both values;
            or a value has no subsets to compare by, or other groups.
    """
    metric = a.protocol.metric
    if (difference := find_difference(a.protocol, b.protocol)) is not None:
        raise EvaluationError(
            f"two values of {metric} cannot be compared: {difference}; evaluate both under one "
            "protocol"
        )
    if a.interval is None or b.interval is None:
        raise EvaluationError(
            f"{metric}: a value has no interval; evaluate at least 4 images again"
        )
    if len(a.leave_out) != len(b.leave_out):
        raise EvaluationError(
            f"{len(a.leave_out)} groups against {len(b.leave_out)}: evaluate both with one "
            "evaluate.interval_groups"
        )
    from scipy import stats

    gap = a.value - b.value
    left = [ours - theirs for ours, theirs in zip(a.leave_out, b.leave_out, strict=True)]
    bounds = compute_bounds(gap, left, a.interval.confidence)
    if bounds.standard_error == 0.0:
        p_value = 1.0 if gap == 0.0 else 0.0
    else:
        p_value = 2.0 * float(stats.t.sf(abs(gap) / bounds.standard_error, len(left) - 1))
    return Comparison(gap, bounds.low, bounds.high, p_value, a.better)


@dataclass(frozen=True)
class ModelComparison:
    """``model`` against ``baseline`` in one metric; ``refused``: why they cannot be compared."""

    metric: str
    model: str
    baseline: str
    paired: Comparison | None
    refused: str = ""

    @property
    def verdict(self) -> str:
        """That of the comparison; empty where there is none."""
        return self.paired.verdict if self.paired else ""

    def to_tree(self) -> dict[str, Any]:
        """As JSON; numbers are None where the two cannot be compared."""
        names = ("difference", "low", "high", "p_value")
        return {
            "metric": self.metric,
            "model": self.model,
            "baseline": self.baseline,
            **{name: getattr(self.paired, name, None) for name in names},
            "verdict": self.verdict,
            "refused": self.refused,
        }


def compare_models(
    values: Mapping[str, Mapping[str, MetricValue]], baseline: str | None
) -> list[ModelComparison]:
    """Every other model against ``baseline`` in every metric that both have; none without one.

    Args:
        values: model -> metric -> value; real images in a model's place are left out.
    """
    ours = values.get(baseline, {}) if baseline is not None else {}
    return [
        _compare(metric, (model, value), (str(baseline), ours[metric]))
        for model, theirs in values.items()
        if model not in (baseline, REAL)
        for metric, value in theirs.items()
        if metric in ours
    ]


def _compare(
    metric: str, model: tuple[str, MetricValue], baseline: tuple[str, MetricValue]
) -> ModelComparison:
    try:
        paired = compare_values(model[1], baseline[1])
    except EvaluationError as error:
        return ModelComparison(metric, model[0], baseline[0], None, str(error))
    return ModelComparison(metric, model[0], baseline[0], paired)


def format_comparisons(comparisons: Sequence[ModelComparison]) -> str:
    """Lines for a terminal."""
    lines = []
    for found in comparisons:
        paired = found.paired
        if paired is None:
            lines.append(f"{found.metric}: {found.refused}")
            continue
        words = "shows no difference" if found.verdict == NO_DIFFERENCE else f"is {found.verdict}"
        lines.append(
            f"{found.metric}: {found.model} {words} ({paired.difference:+.4g} "
            f"[{paired.low:+.4g}, {paired.high:+.4g}], p = {paired.p_value:.2g}) "
            f"against {found.baseline}"
        )
    return "\n".join(lines)
