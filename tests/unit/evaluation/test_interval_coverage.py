"""Intervals hold the truth as often as they say, for every metric that the gate accepts."""

from __future__ import annotations

import math

import pytest
import torch

from bench.intervals import (
    DEFAULTS,
    REPEATED,
    SMALL,
    Coverage,
    Setting,
    World,
    measure_coverage,
)
from clipgan.config.sections import NO_GATE
from clipgan.evaluation.metrics.kernel_distances import compute_kid
from clipgan.evaluation.metrics.metric import METRICS
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import compute_bounds
from tests.metric_values import space_inputs
from tests.params import params_with

HELD = (0.93, 0.97)
FALSE_POSITIVES = (0.03, 0.07)
STANDARD_ERRORS = 2.0
"""Of the simulation itself, by which a share may lie outside."""


def lies_within(share: float, limits: tuple[float, float], count: int) -> bool:
    low, high = (
        limit + sign * STANDARD_ERRORS * math.sqrt(limit * (1 - limit) / count)
        for limit, sign in zip(limits, (-1, 1), strict=True)
    )
    return low <= share <= high


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("setting", "experiments"), [(DEFAULTS, 200), (SMALL, 1000), (REPEATED, 400)]
)
def test_every_metric_of_the_gate(setting: Setting, experiments: int) -> None:
    found = measure_coverage(setting, experiments)
    gating = [row for row in found if not row.metric.startswith(NO_GATE)]
    assert [row for row in gating if not lies_within(row.held, HELD, 2 * experiments)] == []
    wrong = [
        row for row in gating if not lies_within(row.false_positives, FALSE_POSITIVES, experiments)
    ]
    assert wrong == []
    # What may not gate errs on the safe side.
    others: list[Coverage] = [row for row in found if row not in gating]
    assert {row.metric for row in others} == {"recall", "coverage"}
    for row in others:
        assert lies_within(row.held, (0.93, 1.0), 2 * experiments), row
        assert lies_within(row.false_positives, (0.0, 0.07), experiments), row


def test_every_metric_that_may_gate_is_simulated() -> None:
    values, _ = World(SMALL, 0).draw_pair(0)
    simulated = {name.replace("fid", "fd") for name in values}
    for name in METRICS:
        found = any(value.startswith(name) for value in simulated)
        assert found or name.startswith(NO_GATE), f"{name} may gate: bench/intervals.py, or NO_GATE"


def test_the_simulation_is_of_the_defaults() -> None:
    config = params_with({}).evaluate
    assert (DEFAULTS.num_images, DEFAULTS.num_concepts, DEFAULTS.samples_per_concept) == (
        config.num_generated,
        config.num_concepts,
        config.samples_per_concept,
    )
    assert (DEFAULTS.candidates, DEFAULTS.num_groups) == (
        config.retrieval_candidates,
        config.interval_groups,
    )


def test_kernel_distances_interval_is_that_of_its_value() -> None:
    """A value from random subsets with an interval from all images holds the truth in 70 %."""
    random = torch.Generator().manual_seed(0)
    reference = torch.randn(100, 16, generator=random).relu()
    values, bounds = [], []
    for experiment in range(200):
        generated = (0.8 * torch.randn(100, 16, generator=random) + 0.3).relu()
        found = compute_kid(space_inputs(generated, reference, Grouping(100, 20, experiment)))
        values.append(found.value)
        bounds.append(compute_bounds(found.value, found.leave_out, 0.95))
    truth = sum(values) / len(values)
    held = sum(interval.low <= truth <= interval.high for interval in bounds) / len(bounds)
    assert lies_within(held, HELD, 200)
