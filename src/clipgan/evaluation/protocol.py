"""A metric value is a number with the protocol that made it; unlike protocols do not compare."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipgan.errors import EvaluationError
from clipgan.evaluation.intervals import (
    METHOD,
    Estimate,
    PairedDifference,
    compare_paired,
    compute_bounds,
    compute_share_bounds,
)

_SHARES = (
    *("precision", "recall", "coverage", "r_precision", "concept_accuracy", "memorised_share"),
    "soa_",
)
"""Metrics that are shares of images: their intervals lie within 0 and 1."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Protocol(_Frozen):
    """Everything that changes a metric's value besides the generator itself.

    ``name`` comes last in comparisons: what really differs is more telling.
    """

    metric: Annotated[str, Field(min_length=1)]
    extractor: Annotated[str, Field(description="network and layer of the feature space")]
    extractor_sha256: Annotated[str, Field(description="of its weights file")]
    independent: Annotated[
        bool, Field(description="false: the generator was trained against this very network")
    ]
    reference_split: str
    reference: Annotated[str, Field(description="how the real images were chosen")]
    reference_count: int
    reference_fingerprint: Annotated[str, Field(description="of the image shards")]
    generated_count: int
    captions: Annotated[str, Field(description="how the captions were chosen")]
    seed: int
    resize: str
    truncation: Annotated[float | None, Field(description="None: not known (files)")]
    clip: Annotated[
        dict[str, str] | None, Field(description="fingerprint of the CLIP that judged, if one did")
    ] = None
    settings: Annotated[
        dict[str, int], Field(description="the metric's own: splits, neighbours, candidates")
    ] = {}
    name: Annotated[str, Field(min_length=1, description="of the protocol")]


class Interval(_Frozen):
    """Where the value would lie with other captions and latents, the reference being the same."""

    low: float
    high: float
    confidence: float
    method: str


class MetricValue(_Frozen):
    """A finite number, its interval, and its protocol.

    Attributes:
        standard_deviation: the metric's own spread, such as over the Inception Score's splits.
        interval: None where there are too few images for one.
        leave_out: the value without each group of generated images; two models measured under one
            protocol share the groups, which makes their comparison a paired one.
    """

    value: float
    standard_deviation: float | None = None
    interval: Interval | None = None
    leave_out: Annotated[tuple[float, ...], Field(strict=False)] = ()
    protocol: Protocol

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.protocol.metric} = {self.value} is not finite")
        return self


def build_value(estimate: Estimate, protocol: Protocol, confidence: float) -> MetricValue:
    """A :class:`MetricValue` with its interval, refused where a number is NaN or infinite.

    Raises:
        EvaluationError: names the metric and the number.
    """
    for number in (estimate.value, *estimate.leave_out):
        if not math.isfinite(number):
            raise EvaluationError(
                f"{protocol.metric} = {number}: its features are damaged or overflowed"
            )
    interval = None
    if len(estimate.leave_out) >= 2:
        value, left = estimate.value, estimate.leave_out
        if protocol.metric.startswith(_SHARES):
            bounds = compute_share_bounds(value, left, confidence, estimate.count)
        else:
            bounds = compute_bounds(value, left, confidence)
        interval = Interval(low=bounds.low, high=bounds.high, confidence=confidence, method=METHOD)
    return MetricValue(
        value=estimate.value,
        standard_deviation=estimate.standard_deviation,
        interval=interval,
        leave_out=estimate.leave_out,
        protocol=protocol,
    )


def find_difference(a: Protocol, b: Protocol) -> str | None:
    """Every field in which two protocols differ, with both values; None where they agree."""
    found = []
    for field in Protocol.model_fields:
        left, right = getattr(a, field), getattr(b, field)
        if isinstance(left, dict) and isinstance(right, dict):
            keys = [key for key in sorted(left | right) if left.get(key) != right.get(key)]
            found += [
                f"{field}.{key}: {left.get(key)!r} against {right.get(key)!r}" for key in keys
            ]
        elif left != right:
            found.append(f"{field}: {left!r} against {right!r}")
    return "; ".join(found) or None


def compare(a: MetricValue, b: MetricValue) -> float:
    """``a.value - b.value``, of values made under one protocol.

    Raises:
        EvaluationError: the protocols differ; names the fields and both values.
    """
    check_same_protocol(a, b)
    return a.value - b.value


def compare_values(a: MetricValue, b: MetricValue) -> PairedDifference:
    """``a - b`` with interval and p-value, paired by the captions and latents that both share.

    Raises:
        EvaluationError: the protocols differ, or a value has no subsets to compare by.
    """
    check_same_protocol(a, b)
    if a.interval is None or b.interval is None:
        raise EvaluationError(
            f"{a.protocol.metric}: a value has no interval; evaluate at least 4 images again"
        )
    return compare_paired(a.value, a.leave_out, b.value, b.leave_out, a.interval.confidence)


def check_same_protocol(a: MetricValue, b: MetricValue) -> None:
    """Refuse values that were not made alike.

    Raises:
        EvaluationError: names every field that differs, with both values.
    """
    difference = find_difference(a.protocol, b.protocol)
    if difference is not None:
        raise EvaluationError(
            f"two values of {a.protocol.metric} cannot be compared: {difference}; "
            "evaluate both under one protocol"
        )


def parse_metric_value(tree: Any, source: str) -> MetricValue:
    """A metric value from its JSON form (``value.model_dump(mode="json")``).

    Raises:
        EvaluationError: a field is missing, unknown or of the wrong type; names it and ``source``.
    """
    try:
        return MetricValue.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "value"
        raise EvaluationError(
            f"{source}: {key}: {first['msg']}; run the evaluate stage again"
        ) from None
