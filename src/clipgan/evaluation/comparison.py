"""Models against one baseline, metric by metric, paired by shared captions, latents and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipgan.errors import EvaluationError
from clipgan.evaluation.protocol import MetricValue, compare_values
from clipgan.evaluation.report import REAL, is_lower_better

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"


@dataclass(frozen=True)
class MetricComparison:
    """``model`` minus ``baseline`` in one metric.

    ``verdict``: better, worse, or no difference shown, where the interval holds 0. ``refused``:
    why the two values cannot be compared; the numbers are then None.
    """

    metric: str
    model: str
    baseline: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    verdict: str = ""
    refused: str = ""

    def to_tree(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare_models(
    values: Mapping[str, Mapping[str, MetricValue]], baseline: str
) -> list[MetricComparison]:
    """Every other model against ``baseline`` in every metric that both have.

    Args:
        values: model -> metric -> value; real images in a model's place are left out.
    """
    found = []
    for model, theirs in values.items():
        if model in (baseline, REAL):
            continue
        for metric, value in theirs.items():
            if metric in values[baseline]:
                found.append(_compare(metric, (model, value), (baseline, values[baseline][metric])))
    return found


def _compare(
    metric: str, model: tuple[str, MetricValue], baseline: tuple[str, MetricValue]
) -> MetricComparison:
    try:
        paired = compare_values(model[1], baseline[1])
    except EvaluationError as error:
        return MetricComparison(metric, model[0], baseline[0], refused=str(error))
    low, high = paired.bounds.low, paired.bounds.high
    if low <= 0 <= high:
        verdict = NO_DIFFERENCE
    else:
        verdict = BETTER if (high < 0) == is_lower_better(metric) else WORSE
    return MetricComparison(
        metric, model[0], baseline[0], paired.difference, low, high, paired.p_value, verdict
    )


def format_comparisons(comparisons: Sequence[MetricComparison]) -> str:
    """A table for a terminal."""
    lines = []
    for found in comparisons:
        if found.refused:
            lines.append(f"{found.metric}: {found.refused}")
            continue
        words = "shows no difference" if found.verdict == NO_DIFFERENCE else f"is {found.verdict}"
        lines.append(
            f"{found.metric}: {found.model} {words} ({found.difference:+.4g} "
            f"[{found.low:+.4g}, {found.high:+.4g}], p = {found.p_value:.2g}) "
            f"against {found.baseline}"
        )
    return "\n".join(lines)
