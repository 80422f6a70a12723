"""Precision, recall, density and coverage, from one set of distances.

The manifold of a set of images is the union of a ball around each image, whose radius is the
distance to its k-th nearest neighbour. Precision is the share of generated images inside the real
manifold, recall the share of real images inside the generated one (Kynkaanniemi et al. 2019). An
outlier has a large ball, which density and coverage avoid (Naeem et al. 2020). No library serves:
torch-fidelity has the first two alone, and no values without a group of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clipgan.evaluation.metrics.inputs import SpaceInputs
from clipgan.evaluation.metrics.metric import POSITIVE, Found, Skip, metric
from clipgan.evaluation.spaces.checks import check_features
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import SHARE, Range

_BLOCK = 2048
_SPARE_NEIGHBOURS = 16
"""Neighbours that are kept besides the nearest k, so that k are left when a group is left out."""


@dataclass(frozen=True)
class ManifoldOverlap:
    """Shares in [0, 1], except density, which is about 1 for a perfect generator."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def _register(name: str, value_range: Range) -> None:
    @metric(name, better="higher", value_range=value_range, needs=SpaceInputs)
    def measure(inputs: SpaceInputs) -> Found:
        fewest = min(len(inputs.generated.plain), len(inputs.reference.plain))
        if fewest <= inputs.neighbourhood:
            return Skip(
                f"neighbourhood = {inputs.neighbourhood} needs more images than the {fewest} of "
                "the smaller set: lower it"
            )
        overlap = inputs.generated.once("overlap", lambda: _measure_overlap(inputs))
        estimate: Estimate = getattr(overlap, name)
        return replace(estimate, settings={"neighbourhood": inputs.neighbourhood})


for _name in ("precision", "recall"):
    _register(_name, SHARE)
_register("density", POSITIVE)
_register("coverage", SHARE)


def _measure_overlap(inputs: SpaceInputs) -> ManifoldOverlap:
    generated, reference = inputs.generated, inputs.reference
    check_features(generated.plain, "generated images")
    check_features(reference.plain, "reference images")
    neighbourhood = inputs.neighbourhood
    overlap = compute_overlap(
        generated.plain,
        reference.plain,
        neighbourhood=neighbourhood,
        grouping=inputs.grouping,
        reference_radii=reference.once(
            f"radii {neighbourhood}", lambda: compute_radii(reference.plain, neighbourhood)
        ),
    )
    # torch-fidelity returns these two as float32.
    rounded = {
        name: replace(estimate, value=float(np.float32(estimate.value)))
        for name, estimate in (("precision", overlap.precision), ("recall", overlap.recall))
    }
    return replace(overlap, **rounded)


def compute_radii(features: Tensor, neighbourhood: int) -> Tensor:
    """Compute the distance of each image to its k-th nearest neighbour, (N,)."""
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
    reference_radii: Tensor,
) -> ManifoldOverlap:
    """Compute all four metrics, also without each group of generated images.

    Recall has no values without a group where no more than ``neighbourhood`` images would be left.

    Args:
        generated, reference: (N, D) and (M, D) float32.
        reference_radii: (M,) of :func:`compute_radii`.
    """
    radii = compute_radii(generated, neighbourhood)
    radii_without = _compute_radii_without_groups(generated, neighbourhood, grouping)
    num_groups = max(grouping.num_groups, 1)
    counts = torch.zeros(len(generated))
    recalled = torch.zeros(len(reference), num_groups, dtype=torch.bool)
    recalled_without = torch.zeros_like(recalled)
    covered = torch.zeros_like(recalled)
    for rows, distances in _blocks(generated, reference):
        inside = distances <= reference_radii[None]
        counts[rows] = inside.sum(1).float()
        reached = distances <= radii[rows, None]
        for group in range(num_groups):
            members = grouping.labels[rows] == group
            covered[:, group] |= inside[members].any(0)
            recalled[:, group] |= reached[members].any(0)
            if radii_without is not None:
                wider = radii_without[rows, group]
                grown = ~members & (wider > radii[rows])
                recalled_without[:, group] |= (distances[grown] <= wider[grown, None]).any(0)
    recall = _share(recalled, grouping, recalled_without)
    return ManifoldOverlap(
        precision=grouping.average((counts > 0).float()),
        recall=recall if radii_without is not None else replace(recall, leave_out=()),
        density=grouping.average(counts / neighbourhood),
        coverage=_share(covered, grouping),
    )


def _share(reached: Tensor, grouping: Grouping, without: Tensor | None = None) -> Estimate:
    """Compute the share of the reference images that generated images reach, also without a group.

    Args:
        reached: (M, G) bool, whether images of group g reach the reference image.
        without: (M, G) bool, whether the other images reach it when group g is left out, because
            their balls have grown.
    """
    every = torch.arange(reached.shape[1])

    def average(group: int) -> float:
        others = reached[:, every != group].any(1)
        return float((others if without is None else others | without[:, group]).double().mean())

    left = tuple(average(group) for group in range(grouping.num_groups))
    return Estimate(float(reached.any(1).double().mean()), left)


def _compute_radii_without_groups(
    features: Tensor, neighbourhood: int, grouping: Grouping
) -> Tensor | None:
    """:func:`compute_radii` among the images outside each group, (N, G).

    Returns None where no group can be left out. An image's radius without its own group means
    nothing.
    """
    labels, num_groups = grouping.labels, grouping.num_groups
    smallest = min((int((labels != group).sum()) for group in range(num_groups)), default=0)
    if smallest <= neighbourhood:
        return None
    radii = torch.empty(len(features), num_groups)
    candidates = min(len(features), neighbourhood + 1 + _SPARE_NEIGHBOURS)
    for rows, distances in _blocks(features, features):
        nearest = distances.topk(candidates, dim=1, largest=False)
        for group in range(num_groups):
            ranks = (labels[nearest.indices] != group).cumsum(1)
            # The first place where the rank is k + 1, because the image itself has rank 1.
            places = (ranks <= neighbourhood).sum(1)
            short = places == candidates
            wider = nearest.values.gather(1, places.clamp_max(candidates - 1)[:, None])[:, 0]
            if short.any():
                others = distances[short][:, labels != group]
                wider[short] = others.kthvalue(neighbourhood + 1, dim=1).values
            radii[rows, group] = wider
    return radii


def _blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over blocks of row numbers with their Euclidean distances to all columns."""
    for numbers in torch.split(torch.arange(len(rows)), _BLOCK):
        yield numbers, torch.cdist(rows[numbers], columns)
