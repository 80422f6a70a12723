"""What metrics are computed from; each metric names the one of these classes that it needs."""

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
    """What all inputs have.

    Attributes:
        space: the feature extractor.
        grouping: groups of the generated images, for intervals.
        changes: fields of the values' protocol that differ from the rest of the study.
    """

    space: FeatureSpace
    grouping: Grouping
    changes: Mapping[str, Any] = field(default_factory=dict)

    def name_value(self, kind: str) -> str:
        """Name a value that was measured in the space."""
        return self.space.name_metric(kind)


@dataclass(frozen=True, kw_only=True)
class SpaceInputs(Inputs):
    """Features of generated images and of the reference in one space."""

    generated: SpaceFeatures
    reference: SpaceFeatures
    neighbourhood: int


@dataclass(frozen=True, kw_only=True)
class TrainingInputs(Inputs):
    """Features of generated images, and (M, D) of all images that a generator may have copied."""

    generated: SpaceFeatures
    training: Tensor


@dataclass(frozen=True, kw_only=True)
class TextInputs(Inputs):
    """Images and their texts in one CLIP's space, all of unit norm.

    Attributes:
        suffix: end of the values' names; empty for the CLIP of the training.
        features: (N, D) of the images.
        texts: (N, D) of each image's own text.
        candidates: (M, D) features of different texts, and for each image (N, C) rows of them, of
            which the first is its own text; None: there are too few texts.
        samples_per_caption: number of images of each text, which follow each other; None: every
            image has a caption, and captions need not differ.
    """

    suffix: str
    features: Tensor
    texts: Tensor
    candidates: tuple[Tensor, Tensor] | None
    samples_per_caption: int | None = None

    def name_value(self, kind: str) -> str:
        """Name a value, with the CLIP's name unless it is the CLIP of the training."""
        return f"{kind}{self.suffix}"

    def average(self, values: Tensor, **settings: int) -> Estimate:
        """Average one number for each image, (N,).

        Images of one text are not independent, so the groups are of texts where each text has
        several images.
        """
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
        gallery: (G, D) of one real image for each concept; None: there are no concepts.
        concepts: (C,) int64, row of the gallery that is right for each caption.
        variant: end of the values' names.
    """

    features: Tensor
    samples_per_caption: int
    gallery: Tensor | None = None
    concepts: Tensor | None = None
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageInputs(Inputs):
    """Features (N, D) of images by a metric's own network, and the captions (N,) of the images."""

    features: Tensor
    captions: Sequence[str]


@dataclass(frozen=True)
class LatentAccess:
    """Access to a generator's latents: text features of conditions, and images of any latents."""

    generate: GenerateFloat
    encode_texts: Callable[[Sequence[str]], Tensor]
    latent_dim: int


@dataclass(frozen=True, kw_only=True)
class GeneratorInputs(Inputs):
    """A generator whose latents can be chosen, and captions (N,).

    Attributes:
        epsilon: length of a step, as a share of the way from one latent to another.
        seed: of the latents.
    """

    latents: LatentAccess
    captions: Sequence[str]
    epsilon: float
    seed: int
