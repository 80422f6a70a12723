"""Confidence intervals and paired tests from subsets that each leave one group of images out.

The generated images are divided into G random groups, and every metric is also computed without
each group, by the same estimator that is reported. The spread of these G values is the standard
error of the whole (the delete-a-group jackknife, Kott 2001; Efron and Tibshirani 1993, chapter 11);
for a mean it equals the usual standard error. It says how much a value would move with other
captions and latents and the same reference images. Images of one caption are not independent, so
they share a group. The groups depend on the captions' order and the seed alone. Two models that are
measured on the same captions with the same seed therefore share them, and the G differences make
the paired test. ``python -m bench.intervals`` measures how often
the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipgan.errors import EvaluationError

METHOD = "subsets that leave one group of generated images out"


@dataclass(frozen=True)
class Estimate:
    """A number, its values without each group of generated images, and the metric's own spread.

    Attributes:
        count: how many independent numbers it is the mean of; None where it is no mean.
        settings: of the metric, besides the protocol's, such as its number of neighbours.
    """

    value: float
    leave_out: tuple[float, ...] = ()
    standard_deviation: float | None = None
    count: int | None = None
    settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """A confidence interval; ``standard_error`` is the jackknife's."""

    low: float
    high: float
    standard_error: float


def compute_bounds(value: float, leave_out: Sequence[float], confidence: float) -> Bounds:
    """Return ``value`` plus and minus Student's quantile times the jackknife's standard error.

    Raises:
        EvaluationError: fewer than two subsets.
    """
    error = _compute_standard_error(leave_out)
    half = _find_quantile(len(leave_out), confidence) * error
    return Bounds(value - half, value + half, error)


def compute_share_bounds(
    value: float, leave_out: Sequence[float], confidence: float, count: int | None
) -> Bounds:
    """Compute Wilson's score interval (1927) of a share in [0, 1], which is right near 0 and 1 too.

    The number of trials is the one that gives a binomial share the jackknife's standard error.
    Where that error is 0 (no image counts, or every image does), it is ``count``.

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
    # Rounding must not move the share itself out of its interval at 0 and 1.
    return Bounds(max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0), error)


def _compute_standard_error(leave_out: Sequence[float]) -> float:
    count = len(leave_out)
    if count < 2:
        raise EvaluationError(f"{count} subsets give no interval: evaluate more images")
    spread = float(np.var(np.asarray(leave_out, dtype=np.float64)))
    # Equal numbers may have a spread of about 1e-34, because their mean is rounded.
    return math.sqrt((count - 1) * spread) if np.ptp(leave_out) > 0 else 0.0


def _find_quantile(num_groups: int, confidence: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, num_groups - 1))
