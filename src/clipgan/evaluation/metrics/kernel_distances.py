"""KID and CMMD: maximum mean discrepancies, in blocks, and without each group of images.

MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) (Gretton et al. 2012). Only sums of kernel values over
pairs of groups are kept, so leaving a group out costs nothing. No library serves: torch-fidelity's
KID averages random subsets, and has neither CMMD nor values without a group of images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.evaluation.metrics.inputs import SpaceInputs
from clipgan.evaluation.metrics.metric import UNBOUNDED, Found, metric
from clipgan.evaluation.spaces.checks import check_features
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

Kernel = Callable[[Tensor, Tensor], Tensor]
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0
"""Sigma of the Gaussian kernel and factor on the value, of Jayasumana et al. 2024, section 4."""
_BLOCK = 2048
_DIAGONAL = 64
"""Side of the blocks on the diagonal. It is small, because most of such a block is not needed."""


def build_cubic_kernel(dimensions: int) -> Kernel:
    """(x . y / D + 1)^3, the kernel of KID (Binkowski et al. 2018)."""
    return lambda x, y: (x @ y.T / dimensions + 1.0) ** 3


def gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    """exp(-|x - y|^2 / (2 sigma^2)) with CMMD's sigma."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * (x @ y.T)
    return torch.exp(-squared / (2 * CMMD_SIGMA**2))


@metric("kid", better="lower", value_range=UNBOUNDED, needs=SpaceInputs)
def compute_kid(inputs: SpaceInputs) -> Estimate:
    """Compute the unbiased MMD^2 with the cubic kernel (x.y / D + 1)^3 (Binkowski et al. 2018).

    All images are taken at once. Tables in papers hold the mean over random subsets, which has the
    same expectation, a larger variance, and no value without a group of images (docs/adr/0018).

    Raises:
        EvaluationError: see :func:`check_features`.
    """
    generated, reference = inputs.generated.plain, inputs.reference.plain
    check_features(generated, "generated images")
    check_features(reference, "reference images")
    kernel = build_cubic_kernel(generated.shape[1])
    return compute_discrepancy(
        generated.double(), reference.double(), kernel, inputs.grouping, unbiased=True
    )


@metric("cmmd", better="lower", value_range=UNBOUNDED, needs=SpaceInputs)
def measure_cmmd(inputs: SpaceInputs) -> Found:
    """:func:`compute_cmmd`; it is defined in the space of a CLIP only."""
    if not inputs.space.is_clip:
        return None
    return compute_cmmd(inputs.generated.plain, inputs.reference.plain, inputs.grouping)


def compute_cmmd(generated: Tensor, reference: Tensor, grouping: Grouping) -> Estimate:
    """Compute 1000 times the biased MMD^2 of unit-norm CLIP features with a Gaussian kernel.

    Args:
        generated, reference: (N, D) and (M, D) float, brought to unit norm here.
    """
    squared = compute_discrepancy(
        normalize(generated.double(), dim=1),
        normalize(reference.double(), dim=1),
        gaussian_kernel,
        grouping,
        unbiased=False,
    )
    return Estimate(
        CMMD_SCALE * squared.value, tuple(CMMD_SCALE * value for value in squared.leave_out)
    )


def compute_discrepancy(
    generated: Tensor, reference: Tensor, kernel: Kernel, grouping: Grouping, *, unbiased: bool
) -> Estimate:
    """Compute MMD^2 of two whole sets.

    Args:
        generated: (N, D) float64 of the images of ``grouping``.
        reference: (M, D) float64.
        unbiased: leave out the pairs of an image with itself (Gretton et al. 2012, lemma 6).
    """
    membership = _encode_groups(grouping)
    within = torch.zeros(membership.shape[1], membership.shape[1], dtype=torch.float64)
    diagonal = torch.zeros(len(generated), dtype=torch.float64)
    across = torch.zeros(len(generated), dtype=torch.float64)
    for rows in torch.split(torch.arange(len(generated)), _BLOCK):
        block = generated[rows]
        across[rows] = _sum_rows(block, reference, kernel)
        for columns in torch.split(torch.arange(len(generated)), _BLOCK):
            values = kernel(block, generated[columns])
            within += membership[rows].T @ values @ membership[columns]
            if torch.equal(rows, columns):
                diagonal[rows] = values.diagonal()
    own = _average_pairs(reference, kernel, unbiased=unbiased)
    counts = membership.sum(0)
    group_diagonal, group_across = membership.T @ diagonal, membership.T @ across

    def combine(kept: Tensor) -> float:
        count = float(counts[kept].sum())
        inside = float(within[kept][:, kept].sum())
        if unbiased:
            inside -= float(group_diagonal[kept].sum())
        pairs = count * (count - 1) if unbiased else count * count
        crossing = float(group_across[kept].sum()) / (count * len(reference))
        return inside / pairs + own - 2 * crossing

    every = torch.arange(len(counts))
    left = tuple(combine(every[every != group]) for group in range(grouping.num_groups))
    return Estimate(combine(every), left)


def _encode_groups(grouping: Grouping) -> Tensor:
    """(N, G) float64, 1 where the image belongs to the group."""
    num = max(grouping.num_groups, 1)
    return (grouping.labels[:, None] == torch.arange(num)[None]).double()


def _sum_rows(block: Tensor, others: Tensor, kernel: Kernel) -> Tensor:
    total = torch.zeros(len(block), dtype=torch.float64)
    for part in torch.split(others, _BLOCK):
        total += kernel(block, part).sum(1)
    return total


def _average_pairs(features: Tensor, kernel: Kernel, *, unbiased: bool) -> float:
    num = len(features)
    total = sum(
        float(_sum_rows(block, features, kernel).sum()) for block in torch.split(features, _BLOCK)
    )
    if not unbiased:
        return total / num**2
    own = sum(
        float(kernel(block, block).diagonal().sum()) for block in torch.split(features, _DIAGONAL)
    )
    return (total - own) / (num * (num - 1))
