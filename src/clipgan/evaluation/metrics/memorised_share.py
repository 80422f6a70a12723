"""Memorised share: how many generated images copy a training image.

An image counts as memorised when it is nearer to a training image than every other training image
is (one minus the authenticity of Alaa et al. 2022, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import TrainingInputs
from clipgan.evaluation.metrics.metric import metric
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import SHARE

_BLOCK = 1024


@dataclass(frozen=True)
class NearestTraining:
    """For each generated image its nearest training row, the distance, and whether it is memorised.

    ``rows`` (N,) int64, ``distances`` (N,) float32, ``memorised`` (N,) float64 of 0 and 1.
    """

    rows: Tensor
    distances: Tensor
    memorised: Tensor

    def closest(self, count: int) -> Tensor:
        """Return the rows of the ``count`` generated images that are closest to training images."""
        return self.distances.argsort(stable=True)[:count]


@metric("memorised_share", better="lower", value_range=SHARE, needs=TrainingInputs)
def measure_memorised_share(inputs: TrainingInputs) -> Estimate:
    """Compute the share of the generated images that are memorised."""
    return inputs.grouping.average(find_nearest(inputs).memorised)


def find_nearest(inputs: TrainingInputs) -> NearestTraining:
    """Search once for the share and for the report, which shows the closest pairs."""
    generated, training = inputs.generated, inputs.training
    return generated.once("nearest", lambda: find_nearest_training(generated.plain, training))


def find_nearest_training(generated: Tensor, training: Tensor) -> NearestTraining:
    """Find the nearest training image of each generated image.

    Args:
        generated, training: (N, D) and (M, D) float32 features.

    Raises:
        EvaluationError: fewer than two training images.
    """
    if len(training) < 2:
        raise EvaluationError(f"{len(training)} training images; memorisation needs at least 2")
    rows = _search(generated, training)
    distances = _measure(generated, training[rows])
    # The neighbour of a training image is needed only where the image is the nearest to some other.
    unique: tuple[Tensor, Tensor] = torch.unique(rows, return_inverse=True)
    chosen, places = unique
    neighbours = _search(training[chosen], training, skip=chosen)
    own = _measure(training[chosen], training[neighbours])
    return NearestTraining(rows, distances, (distances < own[places]).double())


def _search(queries: Tensor, others: Tensor, *, skip: Tensor | None = None) -> Tensor:
    """Find the row of ``others`` nearest to each query; ``skip`` (N,) are rows not to be found."""
    nearest = []
    for start in range(0, len(queries), _BLOCK):
        part = queries[start : start + _BLOCK]
        distances = torch.cdist(part, others)
        if skip is not None:
            distances[torch.arange(len(part)), skip[start : start + _BLOCK]] = torch.inf
        nearest.append(distances.argmin(dim=1))
    return torch.cat(nearest)


def _measure(a: Tensor, b: Tensor) -> Tensor:
    """Distance of each pair of rows; unlike cdist's, it is exactly 0 for equal rows."""
    distances: Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return distances
