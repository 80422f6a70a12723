"""Means, paired differences and their intervals."""

from __future__ import annotations

import math

import pytest

from bench.experiments.results import Record, compare_arms, load_records, save_records


def test_interval_of_one_arm_is_the_paired_t_interval() -> None:
    first = {0: 0.0, 1: 0.0, 2: 0.0}
    found = compare_arms({"first": first, "other": {0: 1.0, 1: 2.0, 2: 3.0}}, "first")["other"]
    # t(0.975, 2) = 4.302653; the differences 1, 2, 3 have a standard deviation of 1.
    assert found.difference == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert not found.is_clear


def test_variance_is_pooled_over_the_arms() -> None:
    values = {
        "first": {0: 0.0, 1: 0.0},
        "steady": {0: 5.0, 1: 5.0},
        "noisy": {0: 4.0, 1: 6.0},
    }
    found = compare_arms(values, "first")
    # Sums of squares 0 and 2 over two degrees of freedom: a pooled variance of 1; t(0.975, 2).
    assert found["steady"].half_width == pytest.approx(4.302653 / math.sqrt(2), rel=1e-6)
    assert found["noisy"].half_width == pytest.approx(found["steady"].half_width)
    assert found["steady"].is_clear


def test_seeds_without_a_partner_do_not_count_in_the_difference() -> None:
    found = compare_arms({"first": {0: 1.0}, "other": {0: 2.0, 1: 90.0}}, "first")["other"]
    assert found.difference == pytest.approx(1.0)
    assert found.half_width is None
    assert found.mean == pytest.approx(46.0)


def test_differences_of_one_seed_have_no_interval() -> None:
    found = compare_arms({"first": {0: 1.0}, "other": {0: 2.0}}, "first")
    assert found["first"].difference is None
    assert found["other"].half_width is None
    assert not found["other"].is_clear


def test_records_survive_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    history = [{"images_seen": 16, "loss": 1.0}]
    record = Record("study", "arm", 0, {"m": 0.1}, history, 2.0, 3.0, 4)
    save_records("plan", [record])
    assert load_records("plan") == [record]
