"""What metrics are computed from. A metric names one of these classes as what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clipgan.evaluation.spaces.extraction import SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

GenerateFloat = Callable[[Tensor, Tensor], Tensor]
"""Latents (N, Z) and text features (N, D) -> images (N, 3, R, R) float in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What all have.

    Attributes:
        space: the network that looked at the images.
        grouping: of the generated images, for intervals.
        changes: fields of the values' protocol that differ from the rest of the study.
    """

    space: FeatureSpace
    grouping: Grouping
    changes: Mapping[str, Any] = field(default_factory=dict)

    def name_value(self, kind: str) -> str:
        """How a value is called that was found in the space."""
        return self.space.name_metric(kind)


@dataclass(frozen=True, kw_only=True)
class SpaceInputs(Inputs):
    """Features of generated images and of the reference in one space."""

    generated: SpaceFeatures
    reference: SpaceFeatures
    neighbourhood: int


@dataclass(frozen=True, kw_only=True)
class TrainingInputs(Inputs):
    """Features of generated images, and of all images (M, D) that a generator may have copied."""

    generated: SpaceFeatures
    training: Tensor


@dataclass(frozen=True, kw_only=True)
class TextInputs(Inputs):
    """Images and their texts in one CLIP's space, all of unit norm.

    Attributes:
        suffix: of the values' names; empty for the CLIP of the training.
        features: (N, D) of the images.
        texts: (N, D) of each image's own text.
        candidates: (M, D), each different text once, and (N, C) rows of it, the own text first;
            None: there are too few texts.
        samples_per_caption: images of each text, one after the other; None: images are made from
            captions, which need not differ.
    """

    suffix: str
    features: Tensor
    texts: Tensor
    candidates: tuple[Tensor, Tensor] | None
    samples_per_caption: int | None = None

    def name_value(self, kind: str) -> str:
        """With the CLIP's name, where it is not that of the training."""
        return f"{kind}{self.suffix}"

    def average(self, values: Tensor, **settings: int) -> Estimate:
        """Mean of one number an image, (N,). The images of one text are not independent: groups
        are of texts where each has several images."""
        if self.samples_per_caption is None:
            return self.grouping.average(values, **settings)
        count = self.samples_per_caption
        means = values.double().view(-1, count).mean(dim=1)
        return self.grouping.average(means, samples_per_caption=count, **settings)


@dataclass(frozen=True, kw_only=True)
class CaptionInputs(Inputs):
    """Several images of each caption in one space; ``grouping`` is of the captions.

    Attributes:
        features: (C * samples_per_caption, D), caption after caption.
        gallery: (G, D) of one real image a concept; None: there are no concepts.
        concepts: (C,) int64, row of the gallery that is right for each caption.
        variant: end of the names of the values.
    """

    features: Tensor
    samples_per_caption: int
    gallery: Tensor | None = None
    concepts: Tensor | None = None
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageInputs(Inputs):
    """What a metric's own network, or any function of pixels, says of each image: (N, D).

    ``captions`` (N,) are those the images were made for.
    """

    features: Tensor
    captions: Sequence[str]


@dataclass(frozen=True)
class LatentAccess:
    """A generator from inside: text features of conditions, and images of any latents."""

    generate: GenerateFloat
    encode_texts: Callable[[Sequence[str]], Tensor]
    latent_dim: int


@dataclass(frozen=True, kw_only=True)
class GeneratorInputs(Inputs):
    """A generator that can be looked into, and the captions (N,) to look at.

    Attributes:
        epsilon: share of the way from one latent to the next.
        seed: of the latents.
    """

    latents: LatentAccess
    captions: Sequence[str]
    epsilon: float
    seed: int
