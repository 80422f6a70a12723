"""The drifting field (Deng et al. 2026, arXiv 2602.04770): where generated samples should move.

Each is drawn towards real samples and pushed away from other generated ones, by mean shifts with
the kernel exp(-distance / temperature). The field of two equal sets is zero, and exchanging them
turns it round. The loss asks the generator for the images that it drew, moved along the field.
Unlike a distance to one target, the best answer to several real samples is not their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST_DISTANCE, _SMALLEST_FIELD = 1e-8, 1e-30
"""Stand for zero, which nothing can be divided by. At a low temperature a field far from all
positives is as small as exp(-1 / (2 temperature)), and counts like any other."""


class DriftingLoss(NamedTuple):
    """``loss`` (), differentiable, and ``drift`` (), the root mean square of the fields in units
    of the samples' scale: the loss has about the same value throughout, the drift falls."""

    loss: Tensor
    drift: Tensor


def compute_drifting_field(
    samples: Tensor, positives: Tensor, negatives: Tensor, temperature: Tensor
) -> Tensor:
    """The field at the samples (ibid., algorithm 2), the same shape as they.

    Args:
        samples: (..., G, C); leading indices are fields of their own.
        positives: (..., P, C), which attract.
        negatives: (..., N, C), which repel.
        temperature: (), in the unit of the distances.
    """
    distances = torch.cdist(samples, torch.cat([positives, negatives], dim=-2))
    logits = -distances / temperature
    # The geometric mean of a softmax over what attracts and repels, and of one over the samples.
    affinity = ((logits.log_softmax(-1) + logits.log_softmax(-2)) / 2).exp()
    attracting, repelling = torch.split(
        affinity, [positives.shape[-2], negatives.shape[-2]], dim=-1
    )
    towards = (attracting * repelling.sum(-1, keepdim=True)) @ positives
    away_from = (repelling * attracting.sum(-1, keepdim=True)) @ negatives
    field: Tensor = towards - away_from
    return field


def compute_drifting_loss(
    samples: Tensor,
    positives: Tensor,
    temperatures: Sequence[float],
    average: Callable[[Tensor], Tensor],
) -> DriftingLoss:
    """Mean squared distance of the samples from where their fields point, which has no gradient.

    Samples are divided by a scale that makes the mean distance sqrt(C), and each temperature's
    field by its root mean square, so that neither the network that the samples come from nor the
    temperature decides how much a field counts (ibid., appendix A.6).

    The negatives of a sample are all samples of its leading index, itself among them. Without
    itself a field of few samples does not end: it points from the other samples to the positives,
    wherever the sample is, and drives it past them and away. With itself it is zero where the
    samples are the positives.

    Args:
        samples: (..., G, C) float32; leading indices are fields of their own, which share scale
            and root mean square.
        positives: (..., P, C) float32.
        temperatures: over the mean distance.
        average: mean over all processes that have a part of the samples.
    """
    still = samples.detach()
    mean_distance = average(_compute_mean_distance(still, positives)).clamp(min=_SMALLEST_DISTANCE)
    scale = mean_distance / samples.shape[-1] ** 0.5
    target, drifts = still / scale, []
    for temperature in temperatures:
        field = compute_drifting_field(still, positives, still, temperature * mean_distance)
        # At low temperatures the squares are below what float32 holds.
        square = average((field.double() / scale).square().mean())
        drift = square.sqrt().clamp(min=_SMALLEST_FIELD).float()
        target = target + field / scale / drift
        drifts.append(drift)
    loss = (samples / scale - target).square().mean()
    return DriftingLoss(loss, torch.stack(drifts).square().mean().sqrt())


def _compute_mean_distance(samples: Tensor, positives: Tensor) -> Tensor:
    """Of the samples from all positives and from all other samples."""
    to_positives, to_others = torch.cdist(samples, positives), torch.cdist(samples, samples)
    total = to_positives.sum((-2, -1)) + to_others.sum((-2, -1))
    count, others = samples.shape[-2], samples.shape[-2] - 1
    return (total / (count * (positives.shape[-2] + others))).mean()
