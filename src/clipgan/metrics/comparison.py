"""The paired comparison of two values, and of models with one baseline, metric by metric.

Values that were measured on the same captions, latents and groups are compared group by group,
which cancels the variation that both share. Values of different protocols are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipgan.errors import EvaluationError
from clipgan.metrics.intervals import compute_bounds
from clipgan.metrics.values import Better, MetricValue, find_difference

REAL = "real"
"""Name of the real images that are measured in a model's place; nothing is compared with them."""
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
        """How much better the first value is, and the two ends of that gain's interval."""
        if self.better == "lower":
            # 0 - x, because -0.0 is printed as such.
            return 0.0 - self.difference, 0.0 - self.high, 0.0 - self.low
        return self.difference, self.low, self.high

    @property
    def verdict(self) -> str:
        """Better or worse; no difference is shown where the gain's interval contains 0."""
        _, low, high = self.gain
        if low <= 0 <= high:
            return NO_DIFFERENCE
        return BETTER if low > 0 else WORSE


def compare_values(a: MetricValue, b: MetricValue) -> Comparison:
    """Compute ``a`` minus ``b``, paired by the groups that both share.

    Raises:
        EvaluationError: the protocols differ (the message names every such field with both values),
            a value has no interval, or the two have another number of groups.
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
    """``model`` against ``baseline`` in one metric.

    ``paired`` is None where the two cannot be compared; ``refused`` then says why.
    """

    metric: str
    model: str
    baseline: str
    paired: Comparison | None
    refused: str = ""

    @property
    def verdict(self) -> str:
        """The comparison's verdict; empty where the two cannot be compared."""
        return self.paired.verdict if self.paired else ""

    def to_tree(self) -> dict[str, Any]:
        """Return the comparison as JSON; its numbers are None where the two cannot be compared."""
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
    """Compare every other model with ``baseline`` in every metric that both have.

    Args:
        values: model -> metric -> value; real images in a model's place are left out.
        baseline: one of the models; None: there is nothing to compare.
    """
    if baseline is None:
        return []
    comparisons = []
    for model in (name for name in values if name not in (baseline, REAL)):
        for metric in (name for name in values[model] if name in values.get(baseline, {})):
            paired, refused = None, ""
            try:
                paired = compare_values(values[model][metric], values[baseline][metric])
            except EvaluationError as error:
                refused = str(error)
            comparisons.append(ModelComparison(metric, model, baseline, paired, refused))
    return comparisons


def format_comparisons(comparisons: Sequence[ModelComparison]) -> str:
    """Write the comparisons for a terminal, one a line."""
    lines = []
    for one in comparisons:
        paired = one.paired
        if paired is None:
            lines.append(f"{one.metric}: {one.refused}")
            continue
        words = "shows no difference" if one.verdict == NO_DIFFERENCE else f"is {one.verdict}"
        lines.append(
            f"{one.metric}: {one.model} {words} ({paired.difference:+.4g} "
            f"[{paired.low:+.4g}, {paired.high:+.4g}], p = {paired.p_value:.2g}) "
            f"against {one.baseline}"
        )
    return "\n".join(lines)
