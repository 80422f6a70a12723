"""The Inception Score (Salimans et al. 2016), computed by torch-fidelity."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import SpaceInputs
from clipgan.evaluation.metrics.metric import Found, metric
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

INCEPTION_SCORE_SPLITS = 10
"""Number of splits in Salimans et al. 2016 and in every table since."""
TORCH_FIDELITY_SEED = 2020
"""Its default seed of the shuffle before the splits, so that values equal those of its command."""


@metric("inception_score", better="higher", value_range=(1.0, math.inf), needs=SpaceInputs)
def measure_inception_score(inputs: SpaceInputs) -> Found:
    """Measured where the feature extractor has classes and every split an image."""
    logits = inputs.generated.logits
    if logits is None or len(logits) < INCEPTION_SCORE_SPLITS:
        return None
    return estimate_inception_score(logits, inputs.grouping)


def estimate_inception_score(logits: Tensor, grouping: Grouping) -> Estimate:
    """Compute exp of the mean KL divergence of each image's classes from those of its split.

    An image stays in its split when a group is left out, because splitting every subset anew would
    add noise to each of them. There are no subsets where leaving out a group empties a split.

    Args:
        logits: (N, C) float32, without the last layer's bias as in the TensorFlow original.

    Raises:
        EvaluationError: fewer images than splits.
    """
    if len(logits) < INCEPTION_SCORE_SPLITS:
        raise EvaluationError(
            f"the Inception Score has {INCEPTION_SCORE_SPLITS} splits, there are {len(logits)} "
            "images: raise num_generated"
        )
    score = isc_features_to_metric(
        logits, splits=INCEPTION_SCORE_SPLITS, shuffle=True, rng_seed=TORCH_FIDELITY_SEED
    )
    shares, log_shares = logits.double().softmax(dim=1), logits.double().log_softmax(dim=1)
    entropies = (shares * log_shares).sum(dim=1)
    members = _assign_splits(len(logits))

    def compute(kept: Tensor) -> float:
        chosen = members * kept.double()
        counts = chosen.sum(dim=1)
        means = chosen @ shares / counts[:, None]
        divergences = chosen @ entropies / counts - torch.special.xlogy(means, means).sum(dim=1)
        return float(divergences.exp().mean())

    left = grouping.leave_out(compute)
    return Estimate(
        score[KEY_METRIC_ISC_MEAN],
        left if np.isfinite(left).all() else (),
        score[KEY_METRIC_ISC_STD],
        settings={"splits": INCEPTION_SCORE_SPLITS},
    )


def _assign_splits(num_images: int) -> Tensor:
    """(splits, N) float64, 1 where torch-fidelity puts the image into the split."""
    order = np.random.RandomState(TORCH_FIDELITY_SEED).permutation(num_images)
    members = torch.zeros(INCEPTION_SCORE_SPLITS, num_images, dtype=torch.float64)
    for split in range(INCEPTION_SCORE_SPLITS):
        start, end = (n * num_images // INCEPTION_SCORE_SPLITS for n in (split, split + 1))
        members[split, order[start:end]] = 1.0
    return members
