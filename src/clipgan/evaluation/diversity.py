"""How much the images of one caption differ from each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.errors import EvaluationError
from clipgan.evaluation.extractors import check_finite


def compute_caption_diversity(features: Tensor, samples_per_caption: int) -> Tensor:
    """Mean cosine distance between the images of each caption, (C,) float64 in [0, 2].

    0: the generator ignores its latents.

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
