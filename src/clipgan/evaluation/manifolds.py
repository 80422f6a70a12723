"""Precision, recall, density and coverage: who lies in whose nearest-neighbour balls.

A set's manifold is the union of balls around its images that reach to each one's k-th nearest
other image. Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al.
2020, which no single outlier blows up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.evaluation.intervals import Estimate, Grouping

_BLOCK = 2048


@dataclass(frozen=True)
class ManifoldOverlap:
    """Shares in [0, 1], except density, which is about 1 for a perfect generator."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def compute_radii(features: Tensor, neighbourhood: int) -> Tensor:
    """Distance of each image to its k-th nearest other image, (N,)."""
    parts = [
        distances.kthvalue(neighbourhood + 1, dim=1).values
        for _, distances in _blocks(features, features)
    ]
    return torch.cat(parts)


def compute_overlap(
    generated: Tensor,
    reference: Tensor,
    *,
    neighbourhood: int,
    grouping: Grouping,
    reference_radii: Tensor | None = None,
) -> ManifoldOverlap:
    """All four, with the values that leaving out each group of generated images gives.

    The balls around generated images keep their size when a group is left out.

    Args:
        generated, reference: (N, D) and (M, D) float32.
        reference_radii: (M,) of :func:`compute_radii`, where known.
    """
    if reference_radii is None:
        reference_radii = compute_radii(reference, neighbourhood)
    radii = compute_radii(generated, neighbourhood)
    num_groups = max(grouping.num_groups, 1)
    counts = torch.zeros(len(generated))
    recalled = torch.zeros(len(reference), num_groups, dtype=torch.bool)
    covered = torch.zeros(len(reference), num_groups, dtype=torch.bool)
    for rows, distances in _blocks(generated, reference):
        inside = distances <= reference_radii[None]
        counts[rows] = inside.sum(1).float()
        reached = distances <= radii[rows, None]
        for group in range(num_groups):
            members = grouping.labels[rows] == group
            covered[:, group] |= inside[members].any(0)
            recalled[:, group] |= reached[members].any(0)
    density = grouping.average(counts / neighbourhood)
    return ManifoldOverlap(
        precision=grouping.average((counts > 0).float()),
        recall=_share(recalled, grouping),
        density=density,
        coverage=_share(covered, grouping),
    )


def _share(reached: Tensor, grouping: Grouping) -> Estimate:
    """Share of reference images that some group reaches, (M, G) bool."""
    every = torch.arange(reached.shape[1])

    def average(groups: Tensor) -> float:
        return float(reached[:, groups].any(1).double().mean())

    left = tuple(average(every[every != group]) for group in range(grouping.num_groups))
    return Estimate(average(every), left)


def _blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers and their Euclidean distances to all columns, block by block."""
    for numbers in torch.split(torch.arange(len(rows)), _BLOCK):
        yield numbers, torch.cdist(rows[numbers], columns)
