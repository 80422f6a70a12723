"""Distances between sets of features, each with what leaving groups of images out gives.

The Inception Score, precision and recall are torch-fidelity's own functions; the Frechet distance
is its formula, computed exactly (:mod:`clipgan.evaluation.frechet`), and KID its estimator on all
images at once (:mod:`clipgan.evaluation.kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from clipgan.errors import EvaluationError
from clipgan.evaluation.extractors import check_finite
from clipgan.evaluation.frechet import FrechetReference, compute_distances
from clipgan.evaluation.kernels import build_cubic_kernel, compute_discrepancy
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

INCEPTION_SCORE_SPLITS = 10
"""Of Salimans et al. 2016 and every table since."""
TORCH_FIDELITY_SEED = 2020
"""Its own default for the shuffle before the splits: the same value as its command line gives."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Fractions in [0, 1]."""

    precision: float
    recall: float


def check_features(features: Tensor, what: str) -> None:
    """Refuse features no distance can be computed from.

    Args:
        features: (N, D) float.

    Raises:
        EvaluationError: fewer than two images, NaN, or all images the same.
    """
    if len(features) < 2:
        raise EvaluationError(f"{what}: {len(features)} images; at least 2 are needed")
    check_finite(features, what)
    if torch.equal(features, features[:1].expand_as(features)):
        raise EvaluationError(
            f"{what}: all {len(features)} images look the same to the judge; "
            "a generator that gives one image has collapsed: train again with another seed"
        )


def compute_frechet_distance(generated: Tensor, reference: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to the features (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)); biased upwards by small samples, more so where
    there are fewer images than dimensions.

    Args:
        generated, reference: (N, D) and (M, D) float32.

    Raises:
        EvaluationError: see :func:`check_features`.
    """
    check_features(reference, "reference images")
    grouping = Grouping(len(generated), 0, 0)
    return estimate_frechet_distance(generated, FrechetReference(reference), grouping).value


def estimate_frechet_distance(
    generated: Tensor, reference: FrechetReference, grouping: Grouping
) -> Estimate:
    """:func:`compute_frechet_distance` and what leaving out each group gives.

    Raises:
        EvaluationError: see :func:`check_features`.
    """
    check_features(generated, "generated images")
    groups = range(grouping.num_groups)
    value, *left = compute_distances(generated, reference, grouping.labels, groups)
    return Estimate(value, tuple(left))


def estimate_kernel_distance(generated: Tensor, reference: Tensor, grouping: Grouping) -> Estimate:
    """Unbiased MMD^2 with the cubic kernel (x.y / D + 1)^3 (Binkowski et al. 2018, KID).

    Of all images at once: the mean over random subsets that tables of papers hold has the same
    expectation and a larger variance, and no leave-out of its own (docs/adr/0018).

    Args:
        generated, reference: (N, D) and (M, D) float32.

    Raises:
        EvaluationError: see :func:`check_features`.
    """
    check_features(generated, "generated images")
    check_features(reference, "reference images")
    return compute_discrepancy(
        generated.double(),
        reference.double(),
        build_cubic_kernel(generated.shape[1]),
        grouping,
        unbiased=True,
    )


def compute_precision_recall(
    generated: Tensor, reference: Tensor, *, neighbourhood: int
) -> PrecisionRecall:
    """Shares within the other set's k-nearest-neighbour balls (Kynkaanniemi et al. 2019).

    Precision: of the generated images in the reference's; recall: of the reference's in theirs.

    Raises:
        EvaluationError: a set has no more than ``neighbourhood`` images, or see
            :func:`check_features`.
    """
    for features, what in ((generated, "generated images"), (reference, "reference images")):
        check_features(features, what)
        if len(features) <= neighbourhood:
            raise EvaluationError(
                f"evaluate.neighbourhood = {neighbourhood} needs more than that many images, not "
                f"{len(features)} {what}: lower it"
            )
    metric = prc_features_to_metric(
        generated, reference, prc_neighborhood=neighbourhood, save_cpu_ram=True, verbose=False
    )
    return PrecisionRecall(metric[KEY_METRIC_PRECISION], metric[KEY_METRIC_RECALL])


def estimate_inception_score(logits: Tensor, grouping: Grouping) -> Estimate:
    """exp of the mean KL from each image's classes to all (Salimans et al. 2016), in 10 splits.

    An image stays in its split when a group is left out: subsets that are split anew would add the
    noise of the splitting to every one of them. There are no subsets where one empties a split.

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
    metric = isc_features_to_metric(
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
        metric[KEY_METRIC_ISC_MEAN],
        left if np.isfinite(left).all() else (),
        metric[KEY_METRIC_ISC_STD],
    )


def _assign_splits(num_images: int) -> Tensor:
    """(splits, N) float64, one where torch-fidelity puts the image into the split."""
    order = np.random.RandomState(TORCH_FIDELITY_SEED).permutation(num_images)
    members = torch.zeros(INCEPTION_SCORE_SPLITS, num_images, dtype=torch.float64)
    for split in range(INCEPTION_SCORE_SPLITS):
        start, end = (n * num_images // INCEPTION_SCORE_SPLITS for n in (split, split + 1))
        members[split, order[start:end]] = 1.0
    return members
