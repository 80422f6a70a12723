"""A training that goes on from a checkpoint on a card: near by default, to the bit on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.checkpoint import CheckpointStore
from tests.gpu.setups import FAMILIES, build_step, describe_error, run_step

STEPS, CUT = 6, 3
TOLERANCE = 0.05
"""Of a weight tensor's largest entry, after three steps. Two runs of the same step on a card differ
by the order of atomic additions, 1e-7 of a gradient; Adam's sign turns that into whole steps of the
learning rate (1e-3) where a gradient is nothing but rounding."""


@pytest.fixture
def deterministic() -> Iterator[None]:
    """PyTorch's deterministic algorithms, as docs/gpu.md says to turn them on."""
    torch.use_deterministic_algorithms(True)
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = before


def _train_in_one_piece_and_in_two(
    family: str, device: torch.device, folder: Path
) -> tuple[AdversarialStep, AdversarialStep]:
    whole, first = build_step(family, device), build_step(family, device)
    for index in range(STEPS):
        run_step(whole, device, index).read()
    for index in range(CUT):
        run_step(first, device, index).read()
    store = CheckpointStore(folder, keep=2, fingerprint="f")
    store.save(CUT, {}, first.capture_state())
    checkpoint = store.load_newest()
    assert checkpoint is not None
    second = build_step(family, device, seed=5)
    run_step(second, device, 0).read()
    second.restore_state(checkpoint.tensors)
    # The seed chose the weights that were replaced, and chooses a step's random numbers.
    second.config = whole.config
    for index in range(CUT, STEPS):
        run_step(second, device, index).read()
    return whole, second


@pytest.mark.parametrize("family", FAMILIES)
def test_resume_is_near(family: str, device: torch.device, tmp_path: Path) -> None:
    whole, second = _train_in_one_piece_and_in_two(family, device, tmp_path)
    for group in ("generator", "generator_ema", "discriminator"):
        found = second.capture_state()[group]
        for name, tensor in whole.capture_state()[group].items():
            if tensor.numel() > 1:
                assert describe_error(found[name].float(), tensor.float()) < TOLERANCE, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("deterministic")
def test_resume_is_exact_with_deterministic_algorithms(
    family: str, device: torch.device, tmp_path: Path
) -> None:
    if device.type == "cuda" and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        pytest.skip("cuBLAS is deterministic with CUBLAS_WORKSPACE_CONFIG=:4096:8; `make gpu` has")
    whole, second = _train_in_one_piece_and_in_two(family, device, tmp_path)
    for group, tensors in whole.capture_state().items():
        found = second.capture_state()[group]
        assert tensors.keys() == found.keys()
        differing = [name for name in tensors if not torch.equal(tensors[name], found[name])]
        assert not differing, group
