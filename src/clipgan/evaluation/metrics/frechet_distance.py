"""The squared Frechet distance of two Gaussians, exact in float64 and faster than a matrix root.

|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2) (Dowson and Landau 1982; FID: Heusel et al. 2017).
The last trace is the nuclear norm of C1^(1/2) C2^(1/2). With fewer images than dimensions it is
that of the small matrix A B^T of centred features, where A^T A = C1 and B^T B = C2; otherwise the
sum of the roots of the eigenvalues of L^T C2 L, where L L^T = C1. Both are symmetric problems: no
complex matrix root, and no rounding errors that a rank-deficient product blows up.
"""

from __future__ import annotations

from collections.abc import Iterable
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
"""Of the mean variance, added to the diagonal before Cholesky: moves FID by less than 1e-8."""


@metric("fd", better="lower", value_range=POSITIVE, needs=SpaceInputs)
def measure_frechet_distance(inputs: SpaceInputs) -> Found:
    """Biased upwards by small samples, more so where there are fewer images than dimensions; and
    the same after a blur of both sets (FID-k)."""
    generated, reference = inputs.generated, inputs.reference
    fixed = reference.once(
        "frechet", lambda: FrechetReference(reference.plain, reference.statistics)
    )
    blurred = reference.once(
        "blurred frechet",
        lambda: {radius: FrechetReference(part) for radius, part in reference.blurred.items()},
    )
    found = {"": _estimate(generated.plain, fixed, inputs.grouping)}
    for radius, features in generated.blurred.items():
        estimate = _estimate(features, blurred[radius], inputs.grouping)
        found[f"_blur{radius}"] = replace(estimate, settings={"blur_radius_px": radius})
    return found


def _estimate(features: Tensor, reference: FrechetReference, grouping: Grouping) -> Estimate:
    check_features(features, "generated images")
    groups = range(grouping.num_groups)
    value, *left = compute_distances(features, reference, grouping.labels, groups)
    return Estimate(value, tuple(left))


class FrechetReference:
    """The fixed side of many distances.

    Args:
        features: (M, D) float, M >= 2.
        statistics: of these features, where known; else computed when needed.
    """

    def __init__(self, features: Tensor, statistics: GaussianStatistics | None = None) -> None:
        self._features, self._statistics = features, statistics
        self.count, self.dimensions = features.shape
        self.mean = features.double().mean(dim=0) if statistics is None else statistics.mean
        self._factor: Tensor | None = None

    @cached_property
    def rows(self) -> Tensor:
        """(M, D) centred features over sqrt(M - 1): rows^T rows = covariance."""
        rows: Tensor = (self._features.double() - self.mean) / (self.count - 1) ** 0.5
        return rows

    @cached_property
    def trace(self) -> float:
        """Of the covariance."""
        if self._statistics is not None:
            return float(self._statistics.covariance.trace())
        return float(self.rows.square().sum())

    def conjugate(self, covariance: Tensor) -> Tensor:
        """L^T C L for a covariance C (D, D), where L L^T is this one's; for M > D.

        Only the lower triangle of the result is meant to be read.
        """
        if self._factor is None:
            known = self._statistics
            own = self.rows.T @ self.rows if known is None else known.covariance
            self._factor = factor_covariance(own, full_rank=True)
        return conjugate(covariance, self._factor)


def compute_distance(features: Tensor, reference: FrechetReference) -> float:
    """The distance of ``features`` (N, D) from ``reference``."""
    return compute_distances(features, reference, torch.zeros(len(features)), ())[0]


def compute_distances(
    features: Tensor, reference: FrechetReference, groups: Tensor, left_out: Iterable[int]
) -> list[float]:
    """The distance of all ``features``, then of those without group g for each g of ``left_out``.

    What the subsets share is computed once.

    Args:
        features: (N, D) float.
        groups: (N,) group of each feature.
    """
    num, dimensions = features.shape
    # Centred on all features: the means of the subsets are small corrections to it.
    origin = features.double().mean(dim=0)
    rows = features.double() - origin
    if min(num, reference.count) <= dimensions:
        solve: _SmallSide | _LargeSide = _SmallSide(rows, reference)
    else:
        solve = _LargeSide(rows, reference, groups)
    distances = []
    for group in (None, *left_out):
        kept = torch.ones(num, dtype=torch.bool) if group is None else groups != group
        mean = rows[kept].mean(dim=0)
        count = int(kept.sum())
        variance = float((rows[kept] - mean).square().sum()) / (count - 1)
        gap = float((origin + mean - reference.mean).square().sum())
        root = solve.sum_roots(kept, mean, count, group)
        distances.append(gap + variance + reference.trace - 2 * root)
    return distances


class _SmallSide:
    """Fewer images than dimensions: the matrix A B^T, one row an image, rows dropped as needed."""

    def __init__(self, rows: Tensor, reference: FrechetReference) -> None:
        self._products = rows @ reference.rows.T

    def sum_roots(self, kept: Tensor, mean: Tensor, count: int, group: int | None) -> float:
        del mean, group  # the mean of the products is the product of the mean
        products = self._products[kept]
        products = (products - products.mean(dim=0)) / (count - 1) ** 0.5
        if len(products) > products.shape[1]:
            products = products.T
        return _sum_roots(products @ products.T)


class _LargeSide:
    """At least as many images as dimensions: sums of outer products, one a group."""

    def __init__(self, rows: Tensor, reference: FrechetReference, groups: Tensor) -> None:
        self._reference = reference
        self._scatter = rows.T @ rows
        self._rows, self._groups = rows, groups

    def sum_roots(self, kept: Tensor, mean: Tensor, count: int, group: int | None) -> float:
        del kept
        scatter = self._scatter
        if group is not None:
            dropped = self._rows[self._groups == group]
            scatter = scatter - dropped.T @ dropped
        covariance = (scatter - count * torch.outer(mean, mean)) / (count - 1)
        return _sum_roots(self._reference.conjugate(covariance))


def factor_covariance(covariance: Tensor, *, full_rank: bool) -> Tensor:
    """(D, D) F with F F^T = ``covariance``: by Cholesky where ``full_rank``, else its root."""
    if full_rank:
        jitter = JITTER * float(covariance.diagonal().mean())
        eye = torch.eye(len(covariance), dtype=covariance.dtype)
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * eye)
        if not int(failed):
            lower: Tensor = factor
            return lower
    # Dimensions that never vary: the symmetric root is slower and always there.
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root


def conjugate(covariance: Tensor, factor: Tensor) -> Tensor:
    """F^T C F; only the lower triangle is meant to be read where F is lower triangular."""
    if bool(factor.triu(1).any()):
        return factor.T @ covariance @ factor
    # LAPACK's own reduction does a quarter of the arithmetic of two matrix products.
    product, failed = lapack.dsygst(covariance.numpy(), factor.numpy(), itype=2, lower=1)
    assert failed == 0
    return torch.from_numpy(product)


def _sum_roots(symmetric: Tensor) -> float:
    # Rounding makes zeros slightly negative.
    return float(torch.linalg.eigvalsh(symmetric).clamp_min(0).sqrt().sum())
