"""The value of a metric: a number with its interval, its protocol and its direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipgan.errors import EvaluationError
from clipgan.metrics.intervals import METHOD, Estimate, compute_bounds, compute_share_bounds

Better = Literal["lower", "higher"]
Range = tuple[float, float]
SHARE: Range = (0.0, 1.0)
"""Range of the metrics that are shares of images; their intervals lie within it."""

_LOWER_BEFORE = ("fd_", "kid", "fid", "cmmd", "memorised_share", "path_length")
"""Metrics whose lower values are better, for files of older versions, which do not say so."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Protocol(_Frozen):
    """Everything that changes a metric's value besides the generator itself.

    ``name`` stands last, so that a comparison lists the fields that really differ before it.
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
        dict[str, str] | None,
        Field(description="fingerprint of the CLIP, if the feature extractor is one"),
    ] = None
    settings: Annotated[
        dict[str, int], Field(description="the metric's own: splits, neighbours, candidates")
    ] = {}
    name: Annotated[str, Field(min_length=1, description="of the protocol")]


class Interval(_Frozen):
    """Where the value would lie with other captions and latents and the same reference images."""

    low: float
    high: float
    confidence: float
    method: str


class MetricValue(_Frozen):
    """A finite number with its interval, its direction and its protocol.

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
    better: Better
    protocol: Protocol

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.protocol.metric} = {self.value} is not finite")
        return self


def build_value(
    estimate: Estimate,
    protocol: Protocol,
    confidence: float,
    *,
    better: Better,
    value_range: Range = (-math.inf, math.inf),
) -> MetricValue:
    """Make a :class:`MetricValue` with its interval; NaN and infinity are refused.

    Args:
        value_range: of the metric; :data:`SHARE` has an interval of its own.

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
        if value_range == SHARE:
            bounds = compute_share_bounds(value, left, confidence, estimate.count)
        else:
            bounds = compute_bounds(value, left, confidence)
        interval = Interval(low=bounds.low, high=bounds.high, confidence=confidence, method=METHOD)
    return MetricValue(
        value=estimate.value,
        standard_deviation=estimate.standard_deviation,
        interval=interval,
        leave_out=estimate.leave_out,
        better=better,
        protocol=protocol,
    )


def find_difference(a: Protocol, b: Protocol) -> str | None:
    """Name every field in which two protocols differ, with both values; None where they agree."""
    differences = []
    for field in Protocol.model_fields:
        left, right = getattr(a, field), getattr(b, field)
        if isinstance(left, dict) and isinstance(right, dict):
            keys = [key for key in sorted(left | right) if left.get(key) != right.get(key)]
            differences += [
                f"{field}.{key}: {left.get(key)!r} against {right.get(key)!r}" for key in keys
            ]
        elif left != right:
            differences.append(f"{field}: {left!r} against {right!r}")
    return "; ".join(differences) or None


def parse_value(tree: Any, source: str) -> MetricValue:
    """Read a metric value from its JSON form, ``value.model_dump(mode="json")``.

    Raises:
        EvaluationError: a field is missing, unknown or of the wrong type; names it and ``source``.
    """
    if isinstance(tree, Mapping) and "better" not in tree:
        protocol = tree.get("protocol")
        metric = protocol.get("metric") if isinstance(protocol, Mapping) else None
        lower = isinstance(metric, str) and metric.startswith(_LOWER_BEFORE)
        tree = {**tree, "better": "lower" if lower else "higher"}
    try:
        return MetricValue.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "value"
        raise EvaluationError(
            f"{source}: {key}: {first['msg']}; run the evaluate stage again"
        ) from None


def flatten_metrics(values: Mapping[str, MetricValue], folder: str) -> dict[str, float]:
    """``folder/metric`` -> value, with the ends of its interval as ``.low`` and ``.high``."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        numbers[f"{folder}/{name}"] = value.value
        if value.interval is not None:
            numbers[f"{folder}/{name}.low"] = value.interval.low
            numbers[f"{folder}/{name}.high"] = value.interval.high
    return numbers
