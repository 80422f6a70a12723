"""Distances between sets of features, computed by torch-fidelity from features extracted once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from clipgan.errors import EvaluationError
from clipgan.evaluation.extractors import check_finite


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over random subsets."""

    mean: float
    standard_deviation: float


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
    statistics = []
    for features, what in ((generated, "generated images"), (reference, "reference images")):
        check_features(features, what)
        statistics.append(fid_features_to_statistics(features))
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def compute_kernel_distance(
    generated: Tensor, reference: Tensor, *, subset_size: int, num_subsets: int, seed: int
) -> KernelDistance:
    """Unbiased MMD^2 with the cubic kernel (x.y / D + 1)^3 (Binkowski et al. 2018, KID).

    Raises:
        EvaluationError: a set is smaller than ``subset_size``, or see :func:`check_features`.
    """
    for features, what in ((generated, "generated images"), (reference, "reference images")):
        check_features(features, what)
        if len(features) < subset_size:
            raise EvaluationError(
                f"evaluate.kid_subset_size = {subset_size} is above the {len(features)} {what}: "
                f"set it to {len(features)} or less"
            )
    metric = kid_features_to_metric(
        generated,
        reference,
        kid_subset_size=subset_size,
        kid_subsets=num_subsets,
        rng_seed=seed,
        verbose=False,
    )
    return KernelDistance(metric[KEY_METRIC_KID_MEAN], metric[KEY_METRIC_KID_STD])


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
