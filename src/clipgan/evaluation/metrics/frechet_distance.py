"""The squared Frechet distance of two Gaussians, exact in float64 and faster than a matrix root.

|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2) (Dowson and Landau 1982; FID: Heusel et al. 2017).
The last trace is the nuclear norm of C1^(1/2) C2^(1/2). With fewer images than dimensions it is the
nuclear norm of the small matrix A B^T of centred features, where A^T A = C1 and B^T B = C2;
otherwise it is the sum of the roots of the eigenvalues of L^T C2 L, where L L^T = C1. Both are
symmetric problems, so no complex matrix root is needed and a product of low rank does not amplify
rounding errors, as it does in torch-fidelity. No library leaves groups of images out either.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from scipy.linalg import lapack
from torch import Tensor

from clipgan.evaluation.metrics.inputs import SpaceInputs
from clipgan.evaluation.metrics.metric import POSITIVE, Found, metric
from clipgan.evaluation.spaces.checks import check_features
from clipgan.evaluation.spaces.statistics import GaussianStatistics
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

JITTER = 1e-10
"""Share of the mean variance that is added to the diagonal before Cholesky; it moves FID by less
than 1e-8."""


@metric("fd", better="lower", value_range=POSITIVE, needs=SpaceInputs)
def measure_frechet_distance(inputs: SpaceInputs) -> Found:
    """Compute the distance, also after each blur of both sets (FID-k).

    A small sample biases it upwards, most of all where there are fewer images than dimensions.
    """
    generated, reference = inputs.generated, inputs.reference
    fixed = reference.once(
        "frechet", lambda: FrechetReference(reference.plain, reference.statistics)
    )
    blurred = reference.once(
        "blurred frechet",
        lambda: {radius: FrechetReference(part) for radius, part in reference.blurred.items()},
    )
    estimates = {"": _estimate(generated.plain, fixed, inputs.grouping)}
    for radius, features in generated.blurred.items():
        estimate = _estimate(features, blurred[radius], inputs.grouping)
        estimates[f"_blur{radius}"] = replace(estimate, settings={"blur_radius_px": radius})
    return estimates


def _estimate(features: Tensor, reference: FrechetReference, grouping: Grouping) -> Estimate:
    check_features(features, "generated images")
    value, *left = compute_distances(features, reference, grouping)
    return Estimate(value, tuple(left))


class FrechetReference:
    """The reference images, which many distances are measured from.

    Args:
        features: (M, D) float, M >= 2.
        statistics: of these features; None: they are computed when they are needed.
    """

    def __init__(self, features: Tensor, statistics: GaussianStatistics | None = None) -> None:
        self._features, self._statistics = features, statistics
        self.count, self.dimensions = features.shape
        self.mean = features.double().mean(dim=0) if statistics is None else statistics.mean

    @cached_property
    def rows(self) -> Tensor:
        """(M, D) centred features over sqrt(M - 1): rows^T rows = covariance."""
        rows: Tensor = (self._features.double() - self.mean) / (self.count - 1) ** 0.5
        return rows

    @cached_property
    def trace(self) -> float:
        """Trace of the covariance."""
        if self._statistics is not None:
            return float(self._statistics.covariance.trace())
        return float(self.rows.square().sum())

    @cached_property
    def factor(self) -> Tensor:
        """(D, D) F with F F^T = covariance, for M > D; by Cholesky, unless the rank is too low."""
        known = self._statistics
        covariance = self.rows.T @ self.rows if known is None else known.covariance
        jitter = JITTER * float(covariance.diagonal().mean())
        eye = torch.eye(len(covariance), dtype=covariance.dtype)
        lower, failed = torch.linalg.cholesky_ex(covariance + jitter * eye)
        if not int(failed):
            return lower  # type: ignore[no-any-return]
        # Some dimensions never vary. The symmetric root is slower and always exists.
        values, vectors = torch.linalg.eigh(covariance)
        root: Tensor = vectors * values.clamp_min(0).sqrt()
        return root


def compute_distances(
    features: Tensor, reference: FrechetReference, grouping: Grouping | None = None
) -> list[float]:
    """Compute the distance of all ``features``, (N, D) float, and then without each group.

    Whatever the subsets share is computed once.
    """
    num, dimensions = features.shape
    # Centred on all features; the means of the subsets are small corrections of that.
    origin = features.double().mean(dim=0)
    rows = features.double() - origin
    is_small = min(num, reference.count) <= dimensions
    shared = rows @ reference.rows.T if is_small else rows.T @ rows
    masks = [torch.ones(num, dtype=torch.bool)]
    if grouping is not None:
        masks += [grouping.labels != group for group in range(grouping.num_groups)]
    distances = []
    for kept in masks:
        mean, count = rows[kept].mean(dim=0), int(kept.sum())
        variance = float((rows[kept] - mean).square().sum()) / (count - 1)
        gap = float((origin + mean - reference.mean).square().sum())
        if is_small:
            symmetric = _square_products(shared[kept])
        else:
            dropped = rows[~kept]
            scatter = shared - dropped.T @ dropped
            covariance = (scatter - count * torch.outer(mean, mean)) / (count - 1)
            symmetric = _conjugate(covariance, reference.factor)
        # Rounding may make a zero eigenvalue slightly negative.
        root = float(torch.linalg.eigvalsh(symmetric).clamp_min(0).sqrt().sum())
        distances.append(gap + variance + reference.trace - 2 * root)
    return distances


def _square_products(products: Tensor) -> Tensor:
    """The smaller one of X X^T and X^T X, where X = A B^T is made of ``products`` by centring."""
    # The mean of the products is the product of the mean, which centring A would subtract.
    centred: Tensor = (products - products.mean(dim=0)) / (len(products) - 1) ** 0.5
    if len(centred) > centred.shape[1]:
        centred = centred.T
    return centred @ centred.T


def _conjugate(covariance: Tensor, factor: Tensor) -> Tensor:
    """F^T C F, of which only the lower triangle is right where F is lower triangular."""
    if bool(factor.triu(1).any()):
        return factor.T @ covariance @ factor
    # LAPACK's own reduction does a quarter of the arithmetic of two matrix products.
    product, failed = lapack.dsygst(covariance.numpy(), factor.numpy(), itype=2, lower=1)
    assert failed == 0
    return torch.from_numpy(product)
