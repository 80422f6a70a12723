"""Confidence intervals and paired tests from subsets that each leave one group of images out.

The generated images fall into G random groups; every metric is also computed without each group.
The spread of these G values gives the standard error of the whole (the delete-a-group jackknife,
Kott 2001; Efron and Tibshirani 1993, chapter 11), for a mean exactly the usual one. It says how
much a value would move with other captions and latents; the reference stays. The groups depend on
the number of images and the seed alone, so two models measured on shared captions and seeds share
them, and the G differences give the paired test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from clipgan.errors import EvaluationError

GROUP_STREAM = 3
"""Second word of the random seed; apart from the streams of reference.py and retrieval.py."""
METHOD = "subsets that leave one group of generated images out"


@dataclass(frozen=True)
class Estimate:
    """A number, the same without each group of generated images, and the metric's own spread."""

    value: float
    leave_out: tuple[float, ...] = ()
    standard_deviation: float | None = None


@dataclass(frozen=True)
class Bounds:
    """A confidence interval; ``standard_error`` is the jackknife's."""

    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class PairedDifference:
    """``a - b`` on shared images: the difference, its interval, and a two-sided p-value."""

    difference: float
    bounds: Bounds
    p_value: float


class Grouping:
    """Which group each of a set of images belongs to.

    Args:
        num_images: of the set.
        num_groups: wanted; fewer where a group would have less than two images, and none at all
            for fewer than four images.
    """

    def __init__(self, num_images: int, num_groups: int, seed: int) -> None:
        self.num_images = num_images
        self.num_groups = min(num_groups, num_images // 2) if num_images >= 4 else 0
        rng = np.random.default_rng([seed, GROUP_STREAM])
        labels = np.arange(num_images) % max(self.num_groups, 1)
        self.labels = torch.from_numpy(rng.permutation(labels))

    def leave_out(self, compute: Callable[[Tensor], float]) -> tuple[float, ...]:
        """``compute`` of the boolean mask (N,) of images kept, for each group."""
        return tuple(compute(self.labels != group) for group in range(self.num_groups))

    def average(self, values: Tensor) -> Estimate:
        """Mean of one number an image, (N,)."""
        wide = values.double()
        left = self.leave_out(lambda kept: float(wide[kept].mean()))
        return Estimate(float(wide.mean()), left)


def compute_bounds(value: float, leave_out: Sequence[float], confidence: float) -> Bounds:
    """``value`` plus and minus Student's quantile times the jackknife's standard error.

    Raises:
        EvaluationError: fewer than two subsets.
    """
    count = len(leave_out)
    if count < 2:
        raise EvaluationError(f"{count} subsets give no interval: evaluate more images")
    spread = np.var(np.asarray(leave_out, dtype=np.float64))
    error = math.sqrt((count - 1) * float(spread))
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    return Bounds(value - half, value + half, error)


def compare_paired(
    value_a: float,
    leave_out_a: Sequence[float],
    value_b: float,
    leave_out_b: Sequence[float],
    confidence: float,
) -> PairedDifference:
    """Difference of two models that were measured on the same captions, latents and groups.

    Raises:
        EvaluationError: the numbers of groups differ, or there are fewer than two.
    """
    if len(leave_out_a) != len(leave_out_b):
        raise EvaluationError(
            f"{len(leave_out_a)} groups against {len(leave_out_b)}: evaluate both with one "
            "evaluate.interval_groups"
        )
    difference = value_a - value_b
    left = [a - b for a, b in zip(leave_out_a, leave_out_b, strict=True)]
    bounds = compute_bounds(difference, left, confidence)
    if bounds.standard_error == 0.0:
        p_value = 1.0 if difference == 0.0 else 0.0
    else:
        ratio = abs(difference) / bounds.standard_error
        p_value = 2.0 * float(stats.t.sf(ratio, len(left) - 1))
    return PairedDifference(difference, bounds, p_value)
