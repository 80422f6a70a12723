"""Section ``evaluate`` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clipgan.config.fields import Device, PositiveInt, Section, Seed

Split = Literal["train", "validation", "all"]
ProtocolName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
# YAML lists, kept as tuples so that the section stays hashable.
Spaces = Annotated[tuple[str, ...], Field(strict=False)]
Prompts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
Radii = Annotated[tuple[PositiveInt, ...], Field(strict=False)]
ProtocolNames = Annotated[tuple[ProtocolName, ...], Field(strict=False, min_length=1)]


class CustomProtocol(Section):
    """A protocol of the user's own: one of the named ones with some fields replaced.

    A field that is left out, or null, is that of the protocol it is based on.
    """

    name: ProtocolName
    based_on: ProtocolName
    spaces: Spaces | None = None
    reference_split: Split | None = None
    captions_split: Split | None = None
    reference: Literal["captioned", "whole"] | None = None
    reference_px: Annotated[int, Field(ge=8)] | None = None
    num_generated: Annotated[int, Field(ge=2)] | None = None
    seed: Seed | None = None
    truncation: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    neighbourhood: PositiveInt | None = None
    blur_radii_px: Radii | None = None


class EvaluateConfig(Section):
    """Generator -> metric values, each with its protocol."""

    protocols: Annotated[
        ProtocolNames,
        Field(description="names of `clipgan evaluate --list-protocols`"),
    ]
    custom_protocols: Annotated[tuple[CustomProtocol, ...], Field(strict=False)]
    seed: Seed
    device: Device
    batch_size: PositiveInt
    num_generated: Annotated[int, Field(ge=2)]
    reference_split: Split
    truncation: Annotated[float, Field(gt=0.0, le=1.0)]
    feature_spaces: Annotated[Spaces, Field(description="measured besides those of each protocol")]
    judge_clip_model: Annotated[
        str, Field(min_length=1, description="an open_clip model other than the training one")
    ]
    judge_clip_weights: Annotated[str, Field(min_length=1)]
    retrieval_candidates: Annotated[int, Field(ge=2)]
    prompts: Annotated[
        Prompts, Field(description="texts for images without captions: samples, CLIP scores")
    ]
    num_concepts: Annotated[int, Field(ge=2)]
    samples_per_concept: PositiveInt
    neighbourhood: Annotated[int, Field(ge=1, description="k of precision and recall")]
    path_length_samples: Annotated[int, Field(ge=0, description="0: no perceptual path length")]
    path_length_epsilon: Annotated[float, Field(gt=0.0, lt=1.0)]
    interval_groups: Annotated[int, Field(ge=2, le=100)]
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)]
    compare_initial: Annotated[bool, Field(description="evaluate the initial generator too")]
    grid_prompts: PositiveInt
    grid_samples: PositiveInt
    nearest_pictures: Annotated[
        int, Field(ge=0, description="pairs on the grid of nearest training images; 0: no search")
    ]
    worst_captions: Annotated[int, Field(ge=0, description="lowest CLIP scores in the report")]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [protocol.name for protocol in self.custom_protocols]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"custom_protocols: {name!r} stands there twice: rename one")
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"protocols = {list(self.protocols)} names one twice: remove it")
        return self
