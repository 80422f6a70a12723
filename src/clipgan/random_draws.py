"""Random numbers as a function of a position in the training, whoever shares its batch.

A resumed run needs no hidden state: every step seeds its streams by where it stands. Where several
processes share a batch, row ``r`` of process ``k`` of ``n`` is row ``r * n + k`` of the whole
batch. Every process draws the numbers of the whole batch from the same stream and keeps those of
its own rows, so that the result of a training does not depend on how many processes share its
batch. Drawing takes a negligible part of a step's time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class ShardedGenerator(torch.Generator):
    """A stream that all processes seed alike and take their own rows of.

    Attributes:
        rank: index of this process, from 0.
        num_processes: how many share a batch.
    """

    rank = 0
    num_processes = 1


def build_rng(device: torch.device, *, rank: int = 0, num_processes: int = 1) -> ShardedGenerator:
    """A stream on ``device`` for one process's rows; a single process keeps all."""
    rng = ShardedGenerator(device)
    rng.rank, rng.num_processes = rank, num_processes
    return rng


def draw_normal(shape: Sequence[int], rng: torch.Generator | None, **options: Any) -> Tensor:
    """Standard normal numbers, as ``torch.randn``.

    Args:
        shape: of this process; the first axis counts samples of the batch.
        rng: None: PyTorch's own stream.
        options: ``device`` and ``dtype``, as for ``torch.randn``.
    """
    return _keep_own_rows(torch.randn, shape, rng, options)


def draw_uniform(shape: Sequence[int], rng: torch.Generator | None, **options: Any) -> Tensor:
    """Numbers uniform in [0, 1), as ``torch.rand``; arguments as for :func:`draw_normal`."""
    return _keep_own_rows(torch.rand, shape, rng, options)


def draw_integers(
    low: int, high: int, shape: Sequence[int], rng: torch.Generator | None, **options: Any
) -> Tensor:
    """Integers uniform in ``low..high``, both included; arguments as for :func:`draw_normal`."""

    def draw(size: Sequence[int], **more: Any) -> Tensor:
        return torch.randint(low, high + 1, tuple(size), **more)

    return _keep_own_rows(draw, shape, rng, options)


def _keep_own_rows(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    rng: torch.Generator | None,
    options: dict[str, Any],
) -> Tensor:
    if not isinstance(rng, ShardedGenerator) or rng.num_processes == 1:
        return draw(tuple(shape), generator=rng, **options)
    count = rng.num_processes
    whole = draw((shape[0] * count, *shape[1:]), generator=rng, **options)
    return whole[rng.rank :: count].contiguous()


def derive_seed(*parts: int | str) -> int:
    """63 bits from any number of integers and names; different parts, independent streams."""
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class StepRandom:
    """The random streams of one training step.

    ``rng`` draws tensors on the networks' device; ``host_rng`` draws the few numbers that Python
    needs (crop corners, cutoffs), so that no step waits for the GPU because of them.
    """

    def __init__(self, device: torch.device, *, rank: int = 0, num_processes: int = 1) -> None:
        """Processes that share a batch draw the same numbers and keep those of their rows."""
        self.rng = build_rng(device, rank=rank, num_processes=num_processes)
        self.host_rng = torch.Generator("cpu")

    def seed(self, *parts: int | str) -> None:
        """Start both streams anew, as a function of ``parts`` alone."""
        self.rng.manual_seed(derive_seed("device", *parts))
        self.host_rng.manual_seed(derive_seed("host", *parts))

    def draw_integer(self, low: int, high: int) -> int:
        """Uniform in ``low..high``, both included, from the host stream."""
        return int(torch.randint(low, high + 1, (), generator=self.host_rng))

    def draw_fraction(self) -> float:
        """Uniform in [0, 1) from the host stream."""
        return float(torch.rand((), generator=self.host_rng))
