"""Mean and covariance of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.errors import EvaluationError

_BATCH = 4096


@dataclass(frozen=True)
class GaussianStatistics:
    """``count`` features with ``mean`` (D,) and ``covariance`` (D, D), unbiased, float64."""

    count: int
    mean: Tensor
    covariance: Tensor


def compute_statistics(features: Tensor) -> GaussianStatistics:
    """Compute mean and covariance of (N, D) float features in float64, a few thousand at a time.

    Two parts are merged by their means (Chan et al. 1979), so that no large sums cancel.

    Raises:
        EvaluationError: fewer than two rows.
    """
    if len(features) < 2:
        raise EvaluationError(f"{len(features)} images; a covariance needs at least 2")
    first, *others = torch.split(features.double(), _BATCH)
    count, mean = len(first), first.mean(dim=0)
    scatter = (first - mean).T @ (first - mean)
    for part in others:
        here = part.mean(dim=0)
        centred = part - here
        step, total = here - mean, count + len(part)
        spread = torch.outer(step, step) * (count * len(part) / total)
        scatter = scatter + centred.T @ centred + spread
        mean = mean + step * (len(part) / total)
        count = total
    return GaussianStatistics(count, mean, scatter / (count - 1))
