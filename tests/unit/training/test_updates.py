"""Updates: fp16 gradients are those of fp32, overflow skips an update, the scale finds its size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clipgan.training.distributed import SINGLE
from clipgan.training.state import NonFiniteLossError, capture_optimizer
from clipgan.training.updates import (
    GROWTH_INTERVAL,
    INITIAL_SCALE,
    LARGEST_SCALE,
    LossScale,
    NetworkUpdates,
)
from tests.params import params_with


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, 2.0]))


def _build(precision: str) -> tuple[Weight, NetworkUpdates]:
    weight = Weight()
    return weight, NetworkUpdates(
        weight,
        0.1,
        params_with().train.lafite.optimizer,
        loss_scale=LossScale() if precision == "fp16" else None,
        lazy_interval=None,
        processes=SINGLE,
    )


def _small_gradient(weight: Weight, size: float) -> Tensor:
    """A loss whose gradient passes fp16 at ``size``."""
    return (weight.value.half() * torch.tensor(size).half()).float().sum()


def test_loss_scaling_keeps_gradients_that_fp16_would_lose() -> None:
    weight, updates = _build("fp16")
    seen = []
    updates.optimizer.register_step_pre_hook(lambda *_: seen.append(weight.value.grad.clone()))
    loss = _small_gradient(weight, 1.0) * 1e-8
    values = updates.apply(loss, {"loss": loss}, "main")
    assert torch.allclose(seen[0], torch.full((2,), 1e-8), rtol=1e-3)
    assert values["main_loss_scale"] == INITIAL_SCALE
    assert values["main_gradient_norm"] == pytest.approx(1.414e-8, rel=1e-2)
    plain = Weight()
    (_small_gradient(plain, 1.0) * 1e-8).backward()
    assert float(plain.value.grad.abs().sum()) == 0.0, "the test does not underflow"


def test_overflow_leaves_the_update_out_and_halves_the_scale() -> None:
    weight, updates = _build("fp16")
    before = weight.value.detach().clone()
    loss = _small_gradient(weight, 100.0)
    values = updates.apply(loss, {"loss": loss}, "main")
    assert torch.equal(weight.value, before)
    assert weight.value.grad is None
    assert "main_gradient_norm" not in values, "an infinite number would break the history"
    assert updates.scale == INITIAL_SCALE / 2
    while torch.equal(weight.value, before):
        loss = _small_gradient(weight, 100.0)
        updates.apply(loss, {"loss": loss}, "main")
    assert updates.scale == 512.0, "the largest power of two that times 100 fits into fp16"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_fp16_the_first_infinity_is_an_error(precision: str) -> None:
    weight, updates = _build(precision)
    loss = weight.value.sum() * float("inf")
    with pytest.raises(NonFiniteLossError, match="broken is inf"):
        updates.apply(loss, {"broken": loss}, "main").read()
    assert torch.equal(weight.value, torch.tensor([1.0, 2.0]))


def test_what_no_scale_mends_is_an_error_in_the_end() -> None:
    weight, updates = _build("fp16")
    for _ in range(16):
        loss = weight.value.sum() * float("nan")
        updates.apply(loss, {"broken": loss}, "main")
    assert updates.scale == 1.0
    loss = weight.value.sum() * float("nan")
    with pytest.raises(NonFiniteLossError, match="broken is nan"):
        updates.apply(loss, {"broken": loss}, "main").read()


def test_scale_grows_after_many_good_updates_and_survives() -> None:
    good, broken = torch.tensor(False), torch.tensor(True)
    scale = LossScale()
    assert scale.follow(broken)
    for _ in range(GROWTH_INTERVAL - 1):
        assert not scale.follow(good)
    resumed = LossScale()
    resumed.restore(scale.capture())
    assert float(resumed.value) == INITIAL_SCALE / 2
    resumed.follow(good)
    assert float(resumed.value) == INITIAL_SCALE
    hasty = LossScale(growth_interval=1)
    for _ in range(20):
        hasty.follow(good)
    assert float(hasty.value) == LARGEST_SCALE


def test_an_overflow_starts_the_count_of_good_updates_anew() -> None:
    scale = LossScale(growth_interval=3)
    for broken in (False, False, True, False, False):
        scale.follow(torch.tensor(broken))
    assert float(scale.value) == INITIAL_SCALE / 2
    scale.follow(torch.tensor(False))
    assert float(scale.value) == INITIAL_SCALE


def test_a_left_out_update_leaves_no_trace_in_the_optimizer() -> None:
    """Moments and step counts are those of a training without it."""
    states = []
    for spoiled in (False, True):
        weight, updates = _build("fp32")
        for factor in (1.0, float("nan") if spoiled else None, 2.0):
            if factor is not None:
                loss = weight.value.square().sum() * factor
                updates.apply(loss, {"loss": loss}, "main")
        states.append({**capture_optimizer(updates.optimizer), "weight": weight.value.detach()})
    assert float(states[0]["0.step"]) == 2.0
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
