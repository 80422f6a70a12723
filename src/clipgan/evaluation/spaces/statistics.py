"""Means and covariances of features that come in pieces."""

from __future__ import annotations

from collections.abc import Iterable
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


def compute_statistics(batches: Iterable[Tensor]) -> GaussianStatistics:
    """Mean and covariance of features that come in pieces; the pieces do not change the result.

    Two groups merge by their means (Chan et al. 1979), so that no large sums cancel.

    Args:
        batches: (n, D) float tensors, at least two rows in all.

    Raises:
        EvaluationError: fewer than two rows.
    """
    count, mean, scatter = 0, torch.zeros(0), torch.zeros(0)
    for batch in batches:
        for piece in torch.split(batch.double(), _BATCH):
            here = piece.mean(dim=0)
            centred = piece - here
            product = centred.T @ centred
            if count == 0:
                count, mean, scatter = len(piece), here, product
                continue
            step, total = here - mean, count + len(piece)
            scatter = scatter + product + torch.outer(step, step) * (count * len(piece) / total)
            mean = mean + step * (len(piece) / total)
            count = total
    if count < 2:
        raise EvaluationError(f"{count} images; a covariance needs at least 2")
    return GaussianStatistics(count, mean, scatter / (count - 1))
