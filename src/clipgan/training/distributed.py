"""Several processes that train one model, each on its rows of every batch (torchrun).

Nothing wraps the networks: every process computes the mean loss of its rows, and gradients are
averaged before an update. With the random numbers of :mod:`clipgan.random_draws` and negatives of
all processes, P processes do what one would do with the same batch, up to rounding. A row's
neighbours stay together: row ``r`` of process ``k`` is row ``r * P + k`` of the batch, so minibatch
groups are those of the whole batch wherever the group size divides a process's rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.errors import ConfigError

LONGEST_WAIT = timedelta(days=1)
"""Time limit for what the first process does alone: decoding, samples, evaluations, checkpoints.
A process that dies is noticed at once."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together. With a count of 1 every method is the identity.

    Attributes:
        rank: index of this one, from 0; 0 alone writes and logs.
        count: how many there are.
        waiting_group: a gloo group to wait in, whatever the tensors travel by; None: the default
            group is one.
    """

    rank: int = 0
    count: int = 1
    waiting_group: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def average(self, values: Tensor) -> Tensor:
        """Mean over all processes, element by element; differentiable once."""
        return values if self.count == 1 else _Average.apply(values)

    def all_gather(self, rows: Tensor) -> Tensor:
        """(N, ...) of each process -> (N * count, ...) in the order of the whole batch.

        Differentiable once: a row's gradient is the sum of what all processes ask of it, so that
        after averaging over processes a loss of the gathered rows counts once, not ``count`` times.
        """
        return rows if self.count == 1 else _GatherRows.apply(rows)

    def keep_own_rows(self, rows: Tensor) -> Tensor:
        """The rows of this process among those of the whole batch."""
        return rows[self.rank :: self.count]

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Mean over all processes of float32 tensors that all of them have, in one transfer."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_max(self, value: int, device: torch.device) -> int:
        """The largest of the values that the processes give, the same everywhere."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, device=device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared)

    def wait(self) -> None:
        """Wait until all processes get here, however long the first works alone before.

        This does not use the training's backend: NCCL ends processes that have waited for ten
        minutes, and decoding or evaluating may take hours.
        """
        if self.count > 1:
            dist.monitored_barrier(self.waiting_group, timeout=LONGEST_WAIT)


SINGLE = Processes()


class _Average(torch.autograd.Function):
    """The mean over processes is its own adjoint."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        return _compute_mean(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return _compute_mean(gradients[0])


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, dealt in turn."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        del ctx
        count = dist.get_world_size()
        parts = [
            torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count)
        ]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank() :: dist.get_world_size()]


def _compute_mean(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()


@contextmanager
def join_processes(environment: Mapping[str, str], device: str) -> Iterator[Processes]:
    """The processes that torchrun started, as its environment variables tell; else this one alone.

    Args:
        environment: of this process; torchrun sets WORLD_SIZE, RANK and LOCAL_RANK.
        device: ``train.device``. With GPUs, process k of a machine takes its GPU k (NCCL); without,
            processes talk through gloo.

    Raises:
        ConfigError: fewer GPUs than processes, or a device that all processes would share.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield SINGLE
        return
    rank, local_rank = int(environment["RANK"]), int(environment["LOCAL_RANK"])
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        _check_gpus(device, int(environment.get("LOCAL_WORLD_SIZE", count)))
        torch.cuda.set_device(local_rank)
    if rank > 0:
        # The first process logs for all; errors are logged by each.
        logging.getLogger("clipgan").setLevel(logging.ERROR)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        waiting_group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield Processes(rank, count, waiting_group)
    finally:
        dist.destroy_process_group()


def check_batch_fits(config: TrainConfig, processes: Processes) -> None:
    """Refuse a batch that cannot be dealt to the processes in equal, usable parts.

    Raises:
        ConfigError: names the numbers and a batch size that fits.
    """
    size, count = config.batch_size, processes.count
    if count == 1:
        return
    if size % count:
        fitting = max(size // count, 1) * count
        raise ConfigError(
            f"train.batch_size = {size} is not divisible by {count} processes: use {fitting} or "
            f"{fitting + count}"
        )
    config.section.check_share(size, count)


def _check_gpus(device: str, local_count: int) -> None:
    if ":" in device:
        raise ConfigError(
            f"train.device = {device}, but {local_count} processes cannot share a GPU: use auto"
        )
    available = torch.cuda.device_count()
    if local_count > available:
        raise ConfigError(
            f"{local_count} processes, but this machine has {available} GPUs: start at most "
            f"{available}, or set train.device to cpu"
        )
