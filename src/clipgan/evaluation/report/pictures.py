"""Pictures that an evaluation leaves for its report: samples, and the images worth looking at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class WorstCaption:
    """A caption whose image fits it least: CLIP score and (3, R, R) uint8 image."""

    caption: str
    score: float
    image: Tensor


@dataclass(frozen=True)
class NearestPair:
    """A generated image and the training image nearest to it, (3, R, R) uint8 each."""

    condition: str
    distance: float
    is_memorised: bool
    generated: Tensor
    training: Tensor
    sample_id: str


@dataclass(frozen=True)
class Pictures:
    """Of every model.

    Attributes:
        prompts: rows of the sheets.
        sheets: model -> (prompts, columns, 3, R, R) uint8; columns share their latents.
        worst: model -> captions whose images fit them least, lowest score first.
        nearest: model -> images closest to a training image, closest first.
    """

    prompts: Sequence[str] = ()
    sheets: Mapping[str, Tensor] = field(default_factory=dict)
    worst: Mapping[str, Sequence[WorstCaption]] = field(default_factory=dict)
    nearest: Mapping[str, Sequence[NearestPair]] = field(default_factory=dict)
