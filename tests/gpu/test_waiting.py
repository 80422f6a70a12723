"""No step waits for its card: nothing is read on the host before something is due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clipgan.data.batches import BatchLoader, TrainingData
from clipgan.random_draws import StepRandom
from clipgan.training.state import fetch_losses
from tests.gpu.setups import FAMILIES, build_step, place_batch

READERS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
ADA = {"augmentation__kind": "ada"}


class _WaitingError(Exception):
    """A step read a number."""


@contextmanager
def _forbid_waiting(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An error where the host waits for the device; on the CPU where it reads a step's numbers."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return

    def refuse(name: str, original: Any) -> Any:
        def read(self: Tensor, *given: Any, **named: Any) -> Any:
            if self.dtype.is_floating_point or self.dtype == torch.bool:
                raise _WaitingError(name)
            return original(self, *given, **named)

        return read

    with monkeypatch.context() as patch:
        for name in READERS:
            patch.setattr(Tensor, name, refuse(name, getattr(Tensor, name)))
        # The host's own stream draws on the CPU, whatever the device is.
        patch.setattr(StepRandom, "draw_fraction", lambda self: 0.5)
        yield


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [(family, {}) for family in FAMILIES] + [("lafite", ADA)],
    ids=[*FAMILIES, "lafite-ada"],
)
def test_a_step_never_waits(
    family: str,
    precision: str,
    changes: dict[str, Any],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = build_step(family, device, precision=precision, **changes)
    batch, random = place_batch(step, device), StepRandom(device)
    random.seed(0)
    # The first step builds the optimizers' state and fixed tensors.
    step.step(batch, 0, random).read()
    found = []
    with _forbid_waiting(device, monkeypatch):
        # Lazy phases are due again at 16 steps of LAFITE.
        for index in (1, 16):
            random.seed(index)
            found.append(step.step(batch, index * step.config.batch_size, random))
    fetch_losses(found)
    assert all(losses.read() for losses in found)


def test_a_reading_step_is_caught(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.ones(3, device=device)
    with (
        pytest.raises((_WaitingError, RuntimeError)),
        _forbid_waiting(device, monkeypatch),
    ):
        float(numbers.sum())


def test_a_batch_is_brought_without_waiting(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, dim = 16, 4
    draws = np.random.default_rng(0)
    features = draws.normal(size=(count, dim)).astype(np.float16)
    data = TrainingData(
        images_uint8=draws.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8),
        image_features=features,
        text_features=features,
        caption_offsets=np.arange(count + 1),
    )
    loader = BatchLoader(data, 4, seed=0, mirror=False, device=device)
    loader.batch_at(0)
    with _forbid_waiting(device, monkeypatch):
        batches = [loader.batch_at(position) for position in (4, 8, 4)]
    assert torch.equal(batches[0].images, batches[2].images)
    assert not torch.equal(batches[0].images, batches[1].images)
