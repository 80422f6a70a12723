"""What the loop asks of a training step, and how a step's state becomes plain tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipgan.data.batches import Batch
from clipgan.random_draws import StepRandom

StateTensors = dict[str, dict[str, Tensor]]
"""File name without ending -> tensor name -> tensor: one safetensors file each."""


class NonFiniteLossError(ArithmeticError):
    """A loss or gradient norm is NaN or infinite; the weights were not updated by it."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__(f"{name} is {value}")
        self.name = name
        self.value = value


@dataclass(frozen=True)
class _Phase:
    """``values`` (len(names),) on the device; ``excused``: a truth value (): they may be NaN."""

    names: tuple[str, ...]
    values: Tensor
    excused: Tensor | None


class StepLosses(Mapping[str, float]):
    """The losses of a step, or of one phase of it, by name.

    They stay on the device, because reading them makes a step wait for the GPU. Reading one brings
    all of them to Python; :func:`fetch_losses` does so for many steps at once. ``first | second``
    holds the losses of both.
    """

    def __init__(
        self, names: Sequence[str], values: Tensor, *, excused: Tensor | None = None
    ) -> None:
        """
        Args:
            values: (len(names),) on any device.
            excused: a truth value (): the update was left out, and values that are not finite are
                dropped (fp16 with too large a loss scale). None: false.
        """
        self._phases = [_Phase(tuple(names), values.detach(), excused)]
        self._numbers: list[float] | None = None

    def __or__(self, other: StepLosses) -> StepLosses:
        joined = StepLosses.__new__(StepLosses)
        joined._phases, joined._numbers = [*self._phases, *other._phases], None
        return joined

    def get_on_device(self, name: str) -> Tensor:
        """The value () of a name, left on its device, without waiting."""
        for phase in self._phases:
            if name in phase.names:
                return phase.values[phase.names.index(name)]
        raise KeyError(name)

    def read(self) -> dict[str, float]:
        """The numbers, waiting for the device if need be.

        Raises:
            NonFiniteLossError: one is NaN or infinite and not excused.
        """
        if self._numbers is None:
            fetch_losses([self])
        assert self._numbers is not None
        numbers, losses = iter(self._numbers), {}
        for phase in self._phases:
            values = [next(numbers) for _ in phase.names]
            excused = bool(next(numbers))
            for name, value in zip(phase.names, values, strict=True):
                if math.isfinite(value):
                    losses[name] = value
                elif not excused:
                    raise NonFiniteLossError(name, value)
        return losses

    def __getitem__(self, name: str) -> float:
        return self.read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.read())

    def __len__(self) -> int:
        return len(self.read())


def fetch_losses(steps: Sequence[StepLosses]) -> None:
    """Bring the losses of several steps to Python in one transfer."""
    parts = []
    for step in steps:
        for phase in step._phases:
            excused = phase.values.new_zeros(()) if phase.excused is None else phase.excused
            # Probabilities are float64, losses float32: both survive.
            parts += [phase.values.double(), excused.double().view(1)]
    numbers = torch.cat(parts).tolist() if parts else []
    for step in steps:
        count = sum(len(phase.names) + 1 for phase in step._phases)
        step._numbers, numbers = numbers[:count], numbers[count:]


class Resumable(Protocol):
    """Whatever is trained and resumed; ``advice`` says what to change where it diverges."""

    advice: str

    def capture_state(self) -> StateTensors:
        """Every tensor that the next step depends on, bit for bit."""

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`; KeyError or RuntimeError where names or shapes differ."""


class TrainingStep(Resumable, Protocol):
    """One paper's algorithm: what happens between two values of ``images_seen``."""

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """Update the networks once with ``batch`` and return the losses by name, unread.

        All randomness comes from ``random``, all schedules from ``images_seen``. A phase whose
        losses or gradients are not finite leaves its weights as they are: reading the losses
        raises :class:`NonFiniteLossError`, even many steps later.
        """


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
    # load_state_dict keeps the tensors it is given: cloned, so that no two optimizers share them.
    copies = {i: {n: v.clone() for n, v in entry.items()} for i, entry in entries.items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copies, "param_groups": groups})
