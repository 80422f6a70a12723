"""Caption diversity: how much the images of one caption differ from each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import CaptionInputs
from clipgan.evaluation.metrics.metric import Found, metric
from clipgan.evaluation.spaces.checks import check_finite


@metric("caption_diversity", better="higher", value_range=(0.0, 2.0), needs=CaptionInputs)
def measure_caption_diversity(inputs: CaptionInputs) -> Found:
    """Average over the captions; a caption with one image has no diversity."""
    count = inputs.samples_per_caption
    if count < 2:
        return None
    diversity = compute_caption_diversity(inputs.features, count)
    concepts = {} if inputs.gallery is None else {"concepts": len(inputs.gallery)}
    return inputs.grouping.average(diversity, **concepts, samples_per_caption=count)


def compute_caption_diversity(features: Tensor, samples_per_caption: int) -> Tensor:
    """Compute the mean cosine distance between the images of each caption, (C,) float64 in [0, 2].

    It is 0 where the generator ignores its latents.

    Args:
        features: (C * samples_per_caption, D) float32, caption after caption.

    Raises:
        EvaluationError: fewer than two images a caption, or NaN.
    """
    if samples_per_caption < 2:
        raise EvaluationError(
            f"evaluate.samples_per_concept = {samples_per_caption}: diversity needs at least 2"
        )
    check_finite(features, "features of the images of one caption")
    directions = normalize(features.double(), dim=1).view(
        -1, samples_per_caption, features.shape[1]
    )
    total = torch.linalg.vector_norm(directions.sum(dim=1), dim=1).square()
    pairs = samples_per_caption * (samples_per_caption - 1)
    # |sum|^2 = n + the cosines of all ordered pairs.
    diversity: Tensor = 1 - (total - samples_per_caption) / pairs
    return diversity
