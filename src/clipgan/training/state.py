"""What the loop asks of a training step, and how a step's state becomes plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from clipgan.data.batches import Batch
from clipgan.training.random_streams import StepRandom

StateTensors = dict[str, dict[str, Tensor]]
"""File name without ending -> tensor name -> tensor: one safetensors file each."""


class NonFiniteLossError(ArithmeticError):
    """A loss or gradient norm is NaN or infinite; raised before the weights are updated."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__(f"{name} is {value}")
        self.name = name
        self.value = value


class TrainingStep(Protocol):
    """One paper's algorithm: what happens between two values of ``images_seen``.

    ``advice``: what its user can change where the training diverges.
    """

    advice: str

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> dict[str, float]:
        """Update the networks once with ``batch`` and return the losses by name.

        All randomness comes from ``random``, all schedules from ``images_seen``.

        Raises:
            NonFiniteLossError: before the phase at fault updates its weights.
        """

    def capture_state(self) -> StateTensors:
        """Every tensor that the next step depends on, bit for bit."""

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`; KeyError or RuntimeError where names or shapes differ."""


def capture_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of an optimizer, ``<parameter index>.<name>`` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo of :func:`capture_optimizer`; rates and betas stay those of ``optimizer``."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    # load_state_dict keeps the tensors it is given: clone, so that no two optimizers share them.
    copies = {i: {n: v.clone() for n, v in entry.items()} for i, entry in entries.items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copies, "param_groups": groups})
