"""Confidence intervals and paired tests from subsets that each leave one group of images out.

The generated images fall into G random groups; every metric is also computed without each group,
by the very estimator that is reported. The spread of these G values gives the standard error of the
whole (the delete-a-group jackknife, Kott 2001; Efron and Tibshirani 1993, chapter 11), for a mean
exactly the usual one. It says how much a value would move with other captions and latents; the
reference stays. Images of one caption are not independent, so they share a group. The groups depend
on the captions' order and the seed alone, so two models measured on shared captions and seeds share
them, and the G differences give the paired test. ``python -m bench.intervals`` measures how often
the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
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
    """A number, the same without each group of generated images, and the metric's own spread.

    ``count``: of the independent numbers it is the mean of; None where it is no mean.
    """

    value: float
    leave_out: tuple[float, ...] = ()
    standard_deviation: float | None = None
    count: int | None = None


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
        sources: what each image was made from, such as its caption's row; images of one source
            fall into one group and count as one above. None: each image has its own.
    """

    def __init__(
        self,
        num_images: int,
        num_groups: int,
        seed: int,
        sources: Sequence[Hashable] | None = None,
    ) -> None:
        places: dict[Hashable, int] = {}
        for source in range(num_images) if sources is None else sources:
            places.setdefault(source, len(places))
        self.num_sources = len(places)
        self.num_groups = min(num_groups, len(places) // 2) if len(places) >= 4 else 0
        rng = np.random.default_rng([seed, GROUP_STREAM])
        labels = rng.permutation(np.arange(len(places)) % max(self.num_groups, 1))
        if sources is not None:
            labels = labels[[places[source] for source in sources]]
        self.labels = torch.from_numpy(labels)

    def leave_out(self, compute: Callable[[Tensor], float]) -> tuple[float, ...]:
        """``compute`` of the boolean mask (N,) of images kept, for each group."""
        return tuple(compute(self.labels != group) for group in range(self.num_groups))

    def average(self, values: Tensor) -> Estimate:
        """Mean of one number an image, (N,)."""
        wide = values.double()
        left = self.leave_out(lambda kept: float(wide[kept].mean()))
        return Estimate(float(wide.mean()), left, count=self.num_sources)


def compute_bounds(value: float, leave_out: Sequence[float], confidence: float) -> Bounds:
    """``value`` plus and minus Student's quantile times the jackknife's standard error.

    Raises:
        EvaluationError: fewer than two subsets.
    """
    error = _compute_standard_error(leave_out)
    half = _find_quantile(len(leave_out), confidence) * error
    return Bounds(value - half, value + half, error)


def compute_share_bounds(
    value: float, leave_out: Sequence[float], confidence: float, count: int | None
) -> Bounds:
    """Wilson's score interval (1927) of a share in [0, 1], which holds near 0 and 1 too.

    Its number of trials is the one with which a binomial share has the jackknife's standard error;
    where that is 0 (no image, or every image), it is ``count``.

    Raises:
        EvaluationError: fewer than two subsets.
    """
    error, quantile = _compute_standard_error(leave_out), _find_quantile(len(leave_out), confidence)
    variance = value * (1 - value)
    if variance > 0 and error > 0:
        trials = variance / error**2
    elif count is not None:
        trials = float(count)
    else:
        return Bounds(value, value, error)
    widening = quantile**2 / trials
    centre = (value + widening / 2) / (1 + widening)
    half = quantile / (1 + widening) * math.sqrt(variance / trials + widening / (4 * trials))
    # It holds the share itself, but for rounding at 0 and 1.
    return Bounds(max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0), error)


def _compute_standard_error(leave_out: Sequence[float]) -> float:
    count = len(leave_out)
    if count < 2:
        raise EvaluationError(f"{count} subsets give no interval: evaluate more images")
    spread = float(np.var(np.asarray(leave_out, dtype=np.float64)))
    # Equal numbers whose mean is rounded have a spread of about 1e-34.
    return math.sqrt((count - 1) * spread) if np.ptp(leave_out) > 0 else 0.0


def _find_quantile(num_groups: int, confidence: float) -> float:
    return float(stats.t.ppf(0.5 + confidence / 2, num_groups - 1))


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
