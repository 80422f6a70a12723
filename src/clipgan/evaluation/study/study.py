"""What one study measures: the images to generate, and everything they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.evaluation.metrics.inputs import Inputs
from clipgan.evaluation.spaces.extraction import SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import (
    FeatureSpace,
    TrainingClip,
    check_names_differ,
    find_space,
    name_metric_of,
)
from clipgan.evaluation.spaces.text_image import TextImageModel
from clipgan.evaluation.study.protocols import EvaluationProtocol
from clipgan.evaluation.study.recorder import Recorder
from clipgan.metrics.grouping import Grouping


@dataclass(frozen=True)
class Reference:
    """Real images in one space.

    Attributes:
        features: of the images that generated images are compared with.
        training: (M, D) of the images that a generator may have copied; None: no search.
        training_changes: fields of the protocol of that search.
    """

    space: FeatureSpace
    features: SpaceFeatures
    training: Tensor | None = None
    training_changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextSet:
    """The (N, D) features of a study's conditions in one CLIP.

    For ``candidates`` see :class:`~clipgan.evaluation.metrics.inputs.TextInputs`.
    """

    model: TextImageModel
    texts: Tensor
    candidates: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class PromptSet:
    """Further images, each of one prompt.

    Attributes:
        spaces: in which features of the images are extracted.
        build: features (N, D) of the images in each space -> inputs of metrics.
    """

    prompts: Sequence[str]
    spaces: Sequence[FeatureSpace]
    build: Callable[[Sequence[Tensor]], list[Inputs]]


@dataclass(kw_only=True)
class Study:
    """A protocol with everything that does not depend on the generator.

    Attributes:
        conditions: one for each image to generate.
        condition_rows: row that each condition was taken from; images of one row share a group.
        references: by space; other metrics use the first one too.
        texts: by CLIP; the scores of the last one choose the worst captions.
        captions: captions of the images; None: the conditions are sample ids.
        prompt_sets: further images.
        build_real: inputs of metrics for real images in the generator's place.
        load_training: rows -> (n, 3, R, R) uint8, for pictures of the nearest images.
        sample_ids: of the training images.
        side_px: of the generated images, which are stored for pictures; None: none are stored.
        skipped: metric -> why it cannot be measured here.
        warnings: what to know before reading the values.
    """

    config: EvaluateConfig
    protocol: EvaluationProtocol
    device: torch.device
    recorder: Recorder
    conditions: Sequence[str]
    condition_rows: Sequence[int] | None
    references: Sequence[Reference]
    texts: Sequence[TextSet] = ()
    captions: Sequence[str] | None = None
    prompt_sets: Sequence[PromptSet] = ()
    build_real: Callable[[], list[Inputs]] = list
    load_training: Callable[[Sequence[int]], Tensor] | None = None
    sample_ids: Sequence[str] = ()
    side_px: int | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def group(self, count: int | None = None) -> Grouping:
        """Divide the first ``count`` images into groups; None: all images."""
        num = len(self.conditions) if count is None else count
        rows = None if self.condition_rows is None else self.condition_rows[:num]
        return Grouping(num, self.config.interval_groups, self.protocol.seed, sources=rows)


def find_spaces(
    protocol: EvaluationProtocol, device: torch.device, clip: TrainingClip | None
) -> tuple[list[FeatureSpace], dict[str, str]]:
    """Load the spaces of a protocol whose weights are available, and say why the others are not.

    Raises:
        EvaluationError: the values of two spaces would have one name, or a space is unknown.
    """
    check_names_differ(protocol.spaces)
    spaces, skipped = [], {}
    for spec in protocol.spaces:
        space = find_space(spec, device, clip)
        if isinstance(space, str):
            skipped[name_metric_of(spec)] = space
        else:
            spaces.append(space)
    return spaces, skipped


def warn_of_few_images(reference: Reference, num_generated: int) -> str | None:
    """Warn of a Gaussian that is fitted to fewer images than it has dimensions; None: it is not."""
    plain, space = reference.features.plain, reference.space
    fewest = min(num_generated, len(plain))
    if fewest > plain.shape[1]:
        return None
    return (
        f"{space.name_metric('fd')} is fitted to {fewest:,} images in {plain.shape[1]:,} "
        "dimensions and therefore biased upwards: compare it only at the same counts, and trust "
        f"{space.name_metric('kid')}, which is unbiased"
    )
