"""The weight average against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipgan.training.ema import compute_ema_decay, update_ema


def test_after_one_half_life_half_of_the_old_weights_is_left() -> None:
    decay = compute_ema_decay(
        images_seen=10**6, batch_size=10, half_life_kimg=0.5, ramp_up_fraction=0.0
    )
    assert decay ** (500 / 10) == pytest.approx(0.5)


def test_ramp_limits_the_half_life_to_a_fraction_of_the_images_seen() -> None:
    ramped = compute_ema_decay(
        images_seen=1000, batch_size=50, half_life_kimg=10.0, ramp_up_fraction=0.05
    )
    assert ramped == pytest.approx(0.5)
    late = compute_ema_decay(
        images_seen=10**9, batch_size=50, half_life_kimg=10.0, ramp_up_fraction=0.05
    )
    assert late == pytest.approx(0.5 ** (50 / 10_000))


def test_ramp_forgets_the_random_start_at_once() -> None:
    decay = compute_ema_decay(
        images_seen=0, batch_size=16, half_life_kimg=10.0, ramp_up_fraction=0.05
    )
    assert decay == 0.0


def test_weights_are_averaged_and_buffers_copied() -> None:
    average, source = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        average.weight.fill_(1.0)
        source.weight.fill_(3.0)
        source.running_mean.fill_(7.0)
    update_ema(average, source, decay=0.75)
    assert torch.allclose(average.weight, torch.full((3,), 1.5))
    assert torch.equal(average.running_mean, torch.full((3,), 7.0))
    assert torch.equal(source.weight, torch.full((3,), 3.0))
