"""Reduced precision, frozen blocks and ADA inside LAFITE's step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.families.lafite.training.start import build_lafite_networks, set_precision
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.models.stylegan2 import choose_block_dtype
from tests.params import params_with
from tests.unit.training.step_parts import copy_state, draw_batch, seed_step
from tests.unit.training.test_lafite_step import BATCH, CHANGES, CLIP_SIDE, DIM, Eye

SIDE = 16


def _build(changes: dict[str, Any]) -> LafiteStep:
    prefixed = {f"train.{key}": value for key, value in changes.items()}
    config = params_with({**CHANGES, "train.resolution_px": SIDE, **prefixed}).train
    networks = build_lafite_networks(config, DIM)
    set_precision(networks, config)
    return LafiteStep(networks, Eye(), config, clip_side_px=CLIP_SIDE)


def _run(step: LafiteStep, index: int) -> dict[str, float]:
    batch = draw_batch(BATCH, SIDE, DIM, seed=index)
    return step.step(batch, index * BATCH, seed_step(index * BATCH)).read()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.02), ("bf16", 0.12)])
def test_losses_and_gradients_of_every_phase_are_those_of_fp32(
    precision: str, tolerance: float
) -> None:
    expected = _run(_build({"precision": "fp32"}), 0)
    step = _build({"precision": precision})
    for updates in (step.generator_updates, step.discriminator_updates):
        if updates.loss_scale is not None:
            updates.loss_scale.value.fill_(128.0)
    found = _run(step, 0)
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        # Adam's first step is the gradient's sign: later phases see weights that differ a little.
        assert found[name] == pytest.approx(value, rel=tolerance, abs=0.02), name


def test_only_the_highest_resolutions_are_reduced() -> None:
    half = torch.float16
    formats = {
        count: [choose_block_dtype(side, 64, half, count) == half for side in (4, 8, 16, 32, 64)]
        for count in (1, 3, 8)
    }
    assert formats == {
        1: [False, False, False, False, True],
        3: [False, False, True, True, True],
        8: [False, True, True, True, True],
    }


def test_networks_follow_the_number_of_reduced_resolutions() -> None:
    step = _build({"precision": "fp16", "lafite.reduced_precision_resolutions": 1})
    seen = {}
    for name, block in step.discriminator.blocks.items():
        block.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({f"d{name}": output.dtype})
        )
    for name, block in step.generator.blocks.items():
        block.conv.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({f"g{name}": output.dtype})
        )
    _run(step, 0)
    assert {name for name, dtype in seen.items() if dtype == torch.float16} == {"d16", "g16"}


def test_an_overflowing_path_length_leaves_its_mean_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = _build({"precision": "fp16"})
    step.generator_updates.loss_scale.value.fill_(128.0)
    _run(step, 0)
    mean = step.path_length.mean_length.clone()
    assert float(mean) > 0
    synthesis = step.generator.synthesis
    calls = []

    def overflowing(styles: Tensor, *arguments: Any, **named: Any) -> Tensor:
        calls.append(len(styles))
        images = synthesis(styles, *arguments, **named)
        return images * float("inf") if len(styles) < BATCH else images

    monkeypatch.setattr(step.generator, "synthesis", overflowing)
    values = _run(step, step.config.lafite.losses.path_length_interval)
    assert BATCH // 2 in calls, "the path length phase did not run"
    assert "path_length_penalty" not in values
    assert torch.equal(step.path_length.mean_length, mean)


@pytest.mark.parametrize("frozen", [1, 2])
def test_frozen_blocks_do_not_learn_and_all_others_do(frozen: int) -> None:
    changes = {"initial_weights": "built-in", "lafite.freeze_discriminator_blocks": frozen}
    step = _build(changes)
    before = copy_state(step.discriminator)
    for index in range(2):
        _run(step, index)
    after = step.discriminator.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    prefixes = tuple(f"blocks.{side}." for side in (16, 8)[:frozen])
    assert same == {name for name in before if name.startswith(prefixes)}


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16"},
        {
            "augmentation.kind": "ada",
            "augmentation.ada_target": 0.01,
            "augmentation.ada_interval_steps": 2,
            "augmentation.ada_kimg": 0.02,
        },
        {"lafite.freeze_discriminator_blocks": 1, "initial_weights": "built-in"},
    ],
    ids=["fp16", "ada", "freeze"],
)
def test_captured_state_continues_bit_for_bit(changes: dict[str, Any]) -> None:
    whole, first, second = _build(changes), _build(changes), _build({**changes, "seed": 5})
    for index in range(3):
        _run(whole, index)
        _run(first, index)
    state = {
        group: {name: tensor.clone() for name, tensor in tensors.items()}
        for group, tensors in first.capture_state().items()
    }
    _run(second, 0)
    second.restore_state(state)
    for index in range(3, 6):
        assert _run(second, index) == _run(whole, index)
    for group, tensors in whole.capture_state().items():
        found = second.capture_state()[group]
        assert tensors.keys() == found.keys()
        assert all(torch.equal(tensors[name], found[name]) for name in tensors), group


def test_ada_is_reported_and_raises_its_probability() -> None:
    step = _build(
        {
            "augmentation.kind": "ada",
            "augmentation.ada_target": 0.001,
            "augmentation.ada_interval_steps": 1,
            "augmentation.ada_kimg": 0.01,
        }
    )
    with torch.no_grad():
        # It takes all images for real at first.
        step.discriminator.realness.bias.fill_(0.5)
    reports = [_run(step, index) for index in range(8)]
    assert all("real_logits_sign" in values for values in reports)
    probabilities = [values["augmentation_probability"] for values in reports]
    assert max(probabilities) > 0.0
    signs = [values["real_logits_sign"] for values in reports]
    expected, p = [], 0.0
    for sign in signs:
        p = min(max(p + (0.4 if sign > 0.001 else -0.4), 0.0), 1.0)
        expected.append(p)
    assert probabilities == pytest.approx(expected)
