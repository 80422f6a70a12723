"""Concept accuracy: is the nearest real image, among those of many concepts, of the right one?

Measured in the judge's space (cosine of pooled features), because the generator is trained against
CLIP. The gallery has one real image a concept, so guessing gives one over the number of concepts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.errors import EvaluationError
from clipgan.evaluation.extractors import check_finite


def compute_hits(features: Tensor, concepts: Tensor, gallery_features: Tensor) -> Tensor:
    """1 where the nearest gallery image is of the right concept, (N,) float64.

    Args:
        features: (N, D) float32 of the images to judge.
        concepts: (N,) int64, row of the gallery that is right for each image.
        gallery_features: (C, D) float32, one real image a concept.

    Raises:
        EvaluationError: NaN, or a gallery of fewer than two concepts.
    """
    if len(gallery_features) < 2:
        raise EvaluationError(
            f"concept accuracy needs at least 2 concepts, not {len(gallery_features)}: "
            "raise evaluate.num_concepts"
        )
    check_finite(features, "judge's features of the generated images")
    check_finite(gallery_features, "judge's features of the gallery")
    similarities = normalize(features, dim=1) @ normalize(gallery_features, dim=1).T
    return (similarities.argmax(dim=1) == concepts).double()


def compute_concept_accuracy(features: Tensor, concepts: Tensor, gallery_features: Tensor) -> float:
    """Share of images whose nearest gallery image is of their concept; see :func:`compute_hits`."""
    return float(compute_hits(features, concepts, gallery_features).mean())


def repeat_concepts(num_concepts: int, samples_per_concept: int) -> Tensor:
    """Right gallery rows of samples made concept after concept: 0, 0, 1, 1, ... (int64)."""
    return torch.arange(num_concepts).repeat_interleave(samples_per_concept)
