"""A metric value is a number with the protocol that made it; unlike protocols do not compare."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipgan.errors import EvaluationError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Protocol(_Frozen):
    """Everything that changes a metric's value besides the generator itself."""

    metric: Annotated[str, Field(min_length=1)]
    extractor: Annotated[str, Field(description="network and layer of the feature space")]
    extractor_sha256: Annotated[str, Field(description="of its weights file")]
    independent: Annotated[
        bool, Field(description="false: the generator was trained against this very network")
    ]
    reference_split: str
    reference_count: int
    reference_fingerprint: Annotated[str, Field(description="of the image shards")]
    generated_count: int
    captions: Annotated[str, Field(description="how the captions were chosen")]
    seed: int
    resize: str
    truncation: float
    clip: Annotated[
        dict[str, str] | None, Field(description="fingerprint of the CLIP that judged, if one did")
    ] = None
    settings: Annotated[
        dict[str, int], Field(description="the metric's own: subset size, neighbours, candidates")
    ] = {}


class MetricValue(_Frozen):
    """A finite number, its spread where the metric has one, and its protocol."""

    value: float
    standard_deviation: float | None = None
    protocol: Protocol

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.protocol.metric} = {self.value} is not finite")
        return self


def build_value(
    value: float, protocol: Protocol, standard_deviation: float | None = None
) -> MetricValue:
    """A :class:`MetricValue`, refused where the number is NaN or infinite.

    Raises:
        EvaluationError: names the metric and the number.
    """
    if not math.isfinite(value):
        raise EvaluationError(
            f"{protocol.metric} = {value}: its features are damaged or overflowed"
        )
    return MetricValue(value=value, standard_deviation=standard_deviation, protocol=protocol)


def find_difference(a: Protocol, b: Protocol) -> str | None:
    """The first field in which two protocols differ, with both values; None where they agree."""
    for field in Protocol.model_fields:
        left, right = getattr(a, field), getattr(b, field)
        if isinstance(left, dict) and isinstance(right, dict):
            keys = [key for key in sorted(left | right) if left.get(key) != right.get(key)]
            if keys:
                key = keys[0]
                return f"{field}.{key}: {left.get(key)!r} against {right.get(key)!r}"
        elif left != right:
            return f"{field}: {left!r} against {right!r}"
    return None


def compare(a: MetricValue, b: MetricValue) -> float:
    """``a.value - b.value``, of values made under one protocol.

    Raises:
        EvaluationError: the protocols differ; names the field and both values.
    """
    difference = find_difference(a.protocol, b.protocol)
    if difference is not None:
        raise EvaluationError(
            f"two values of {a.protocol.metric} cannot be compared: {difference}; "
            "evaluate both under one protocol"
        )
    return a.value - b.value


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
