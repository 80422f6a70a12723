"""GALIP's step in every precision: NaN, fp16's loss scale, the same losses, exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.state import NonFiniteLossError
from tests.unit.training.step_parts import copy_state, find_changes
from tests.unit.training.tiny_galip_step import (
    BATCH,
    build_step,
    only_diffaugment,
    run_step,
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nan_stops_before_any_update_of_its_network(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = build_step(train={"precision": precision})
    encode_intermediates = step.tower.encode_intermediates
    monkeypatch.setattr(
        step.tower,
        "encode_intermediates",
        lambda *given: encode_intermediates(*given) * float("nan"),
    )
    before = copy_state(step.discriminator)
    with pytest.raises(NonFiniteLossError) as stop:
        run_step(step)
    assert stop.value.name == "matched_hinge"
    assert find_changes(step.discriminator, before) == set()
    assert all(p.grad is None for p in step.discriminator.parameters())


def _spoil_penalty(monkeypatch: pytest.MonkeyPatch, largest_scale: float) -> None:
    """MA-GP overflows wherever the loss scale is above ``largest_scale``."""
    from clipgan.families.galip.training import step as galip_step

    compute = galip_step.compute_ma_gp

    def overflowing(*given: Any, gradient_scale: float, **named: Any) -> Tensor:
        penalty = compute(*given, gradient_scale=gradient_scale, **named)
        return penalty * float("nan") if gradient_scale > largest_scale else penalty

    monkeypatch.setattr(galip_step, "compute_ma_gp", overflowing)


def test_fp16_overflow_in_ma_gp_skips_the_update_and_halves_the_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = build_step(train={"precision": "fp16"})
    _spoil_penalty(monkeypatch, 300.0)
    before = copy_state(step.discriminator)
    scales = []
    for index in range(2):
        losses = run_step(step, index * BATCH)
        assert "ma_gp" not in losses  # it is no number that could be averaged
        scales.append(losses["discriminator_loss_scale"])
    assert scales == [1024.0, 512.0]
    assert find_changes(step.discriminator, before) == set()
    losses = run_step(step, 2 * BATCH)
    assert losses["discriminator_loss_scale"] == 256.0
    assert losses["ma_gp"] >= 0.0
    assert find_changes(step.discriminator, before) != set()


def test_fp16_nan_that_no_scale_cures_is_raised_for_the_roll_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = build_step({"loss_scale.initial_scale": 2.0}, {"precision": "fp16"})
    start = {k: {n: t.clone() for n, t in v.items()} for k, v in step.capture_state().items()}
    with monkeypatch.context() as patch:
        _spoil_penalty(patch, 0.5)
        assert "ma_gp" not in run_step(step)
        with pytest.raises(NonFiniteLossError) as stop:
            run_step(step, BATCH)
        assert stop.value.name == "ma_gp"
    step.restore_state(start)
    assert run_step(step, seed=1)["discriminator_loss_scale"] == 2.0


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bf16", 0.1), pytest.param("fp16", 0.02, id="fp16")]
)
def test_half_precision_gives_about_the_same_losses(precision: str, tolerance: float) -> None:
    changes = {"losses.ma_gp_weight": 1.0e3}
    full, half = (
        run_step(build_step(changes)),
        run_step(build_step(changes, {"precision": precision})),
    )
    for name, value in full.items():
        assert half[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_checkpoint_on_disk_continues_bit_for_bit(precision: str, tmp_path: Path) -> None:
    train = {"precision": precision, **only_diffaugment("color", "cutout")}
    whole = build_step(train=train)
    for index in range(6):
        run_step(whole, index * BATCH)
    first = build_step(train=train)
    for index in range(3):
        run_step(first, index * BATCH)
    store = CheckpointStore(tmp_path, keep=2, fingerprint="test")
    store.save(3 * BATCH, {}, first.capture_state())
    checkpoint = store.load_newest()
    assert checkpoint is not None
    second = build_step(train=train, seed=5)
    run_step(second)
    second.restore_state(checkpoint.tensors)
    for index in range(3, 6):
        run_step(second, index * BATCH)
    for group, tensors in whole.capture_state().items():
        found = second.capture_state()[group]
        assert tensors.keys() == found.keys()
        assert all(torch.equal(tensors[name], found[name]) for name in tensors), group
    if precision == "fp16":
        # It grew every second step: the counter was carried over the restart too.
        assert whole.capture_state()["loss_scales"]["generator"][0] == 1024.0 * 2**3
