from __future__ import annotations

import math

import pytest
import torch

from clipgan.errors import EvaluationError
from clipgan.metrics.comparison import Comparison, compare_values
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate, compute_bounds, compute_share_bounds
from clipgan.metrics.values import build_value
from tests.metric_values import PROTOCOL


def compare(a: Estimate, b: Estimate) -> Comparison:
    first, second = (build_value(found, PROTOCOL, 0.95, better="lower") for found in (a, b))
    return compare_values(first, second)


def test_groups_are_even_random_and_decided_by_the_seed() -> None:
    grouping = Grouping(103, 20, 0)
    counts = torch.bincount(grouping.labels)
    assert set(counts.tolist()) == {5, 6}
    assert torch.equal(grouping.labels, Grouping(103, 20, 0).labels)
    assert not torch.equal(grouping.labels, Grouping(103, 20, 1).labels)


@pytest.mark.parametrize(("num", "groups"), [(3, 0), (4, 2), (9, 4), (40, 20), (1000, 20)])
def test_small_sets_have_fewer_groups(num: int, groups: int) -> None:
    assert Grouping(num, 20, 0).num_groups == groups


def test_images_of_one_caption_share_a_group() -> None:
    captions = [n % 30 for n in range(100)]
    grouping = Grouping(100, 20, 0, sources=captions)
    assert grouping.num_groups == 15, "groups of at least two captions"
    for caption in range(30):
        assert len(set(grouping.labels[caption::30].tolist())) == 1
    alone = Grouping(100, 20, 0, sources=range(100, 200))
    assert torch.equal(alone.labels, Grouping(100, 20, 0).labels)
    assert Grouping(100, 20, 0, sources=[0, 1, 2] * 33 + [0]).num_groups == 0


def test_repeated_captions_do_not_narrow_an_interval() -> None:
    """Ten images of each of 20 captions, which decide most of a value: 20 numbers, not 200."""
    generator = torch.Generator().manual_seed(0)
    rows = [n % 20 for n in range(200)]
    held = 0
    for trial in range(200):
        values = torch.randn(20, generator=generator)[rows]
        values = values + 0.3 * torch.randn(200, generator=generator)
        found = Grouping(200, 10, trial, sources=rows).average(values)
        bounds = compute_bounds(found.value, found.leave_out, 0.95)
        held += bounds.low <= 0 <= bounds.high
    assert 0.91 < held / 200 < 0.99


@pytest.mark.parametrize("share", [0.02, 0.05, 0.5, 0.96])
def test_intervals_of_shares_hold_near_0_and_1(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for trial in range(400):
        values = (torch.rand(100, generator=generator) < share).double()
        found = Grouping(100, 20, trial).average(values)
        bounds = compute_share_bounds(found.value, found.leave_out, 0.95, found.count)
        assert 0.0 <= bounds.low <= found.value <= bounds.high <= 1.0
        held += bounds.low <= share <= bounds.high
    assert 0.92 < held / 400 < 0.99


def test_a_share_of_none_or_all_is_not_certain() -> None:
    nothing, everything = (
        compute_share_bounds(share, (share,) * 20, 0.95, 100) for share in (0.0, 1.0)
    )
    assert (nothing.low, everything.high) == (0.0, 1.0)
    # Wilson's upper end at 0 of n is q^2 / (n + q^2); Student's q of 19 degrees is 2.093.
    assert nothing.high == pytest.approx(2.093**2 / (100 + 2.093**2), rel=1e-3)
    assert everything.low == pytest.approx(1 - nothing.high)


def test_standard_error_of_a_mean_is_the_usual_one() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    # One image a group is the classical jackknife, which is exact for a mean.
    left = tuple(float(values[torch.arange(40) != n].mean()) for n in range(40))
    bounds = compute_bounds(float(values.mean()), left, 0.95)
    assert bounds.standard_error == pytest.approx(float(values.std()) / math.sqrt(40), rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(400):
        values = torch.rand(100, generator=generator).square()
        found = Grouping(100, 20, trial).average(values)
        bounds = compute_bounds(found.value, found.leave_out, 0.9)
        covered += bounds.low <= 1 / 3 <= bounds.high
    assert 0.86 < covered / 400 < 0.94


def test_pairing_sees_what_two_separate_intervals_hide() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(200, generator=generator) * 10
    grouping = Grouping(200, 20, 0)
    better = shared + 0.5 + 0.1 * torch.randn(200, generator=generator)
    a, b = grouping.average(better), grouping.average(shared)
    apart = [compute_bounds(e.value, e.leave_out, 0.95) for e in (a, b)]
    assert apart[0].low < apart[1].high
    found = compare(a, b)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    assert found.p_value < 1e-6


def test_p_values_of_equal_models_are_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    p_values = []
    for trial in range(300):
        grouping = Grouping(60, 15, trial)
        a, b = (grouping.average(torch.randn(60, generator=generator)) for _ in range(2))
        p_values.append(compare(a, b).p_value)
    found = torch.tensor(p_values)
    assert 0.02 < float((found < 0.05).double().mean()) < 0.09
    assert 0.4 < float(found.mean()) < 0.6


def test_a_model_compared_with_itself_is_no_different() -> None:
    found = compare(Estimate(1.0, (1.0, 2.0)), Estimate(1.0, (1.0, 2.0)))
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_too_few_or_other_groups_are_refused() -> None:
    with pytest.raises(EvaluationError, match="1 subsets give no interval"):
        compute_bounds(1.0, (1.0,), 0.95)
    with pytest.raises(EvaluationError, match=r"2 groups against 3.*interval_groups"):
        compare(Estimate(1.0, (1.0, 2.0)), Estimate(1.0, (1.0, 2.0, 3.0)))
