"""The types of parameters that several sections share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

Precision = Literal["fp32", "bf16"]

PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
ImageSide = Annotated[int, Field(ge=8, le=1024)]
PowerOfTwoResolution = ImageSide
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


def _check_threads(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"{value!r} is no number of threads: use auto, or a whole number from 1")


Threads = Annotated[int | Literal["auto"], PlainValidator(_check_threads)]


def check_power_of_two(key: str, side: int) -> None:
    """ValueError that names ``key`` and two fitting values where ``side`` is no power of two."""
    if side & (side - 1):
        below = 1 << (side.bit_length() - 1)
        raise ValueError(f"{key} = {side} is no power of two: use {below} or {below * 2}")


class Section(BaseModel):
    """A frozen group of parameters; refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def tuple_of(item: Any, **constraints: Any) -> Any:
    """The type of a YAML list, kept as a tuple so that the section stays hashable."""
    return Annotated[tuple[item, ...], Field(strict=False, **constraints)]


class OptimizerConfig(Section):
    """Adam; rates and betas are corrected for lazy regularisation."""

    generator_learning_rate: Positive
    discriminator_learning_rate: Positive
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)]
    epsilon: Positive
