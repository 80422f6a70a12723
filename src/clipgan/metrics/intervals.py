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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipgan.errors import EvaluationError

METHOD = "subsets that leave one group of generated images out"


@dataclass(frozen=True)
class Estimate:
    """A number, the same without each group of generated images, and the metric's own spread.

    Attributes:
        count: of the independent numbers it is the mean of; None where it is no mean.
        settings: what the metric was told besides the protocol, such as its neighbours.
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
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, num_groups - 1))
