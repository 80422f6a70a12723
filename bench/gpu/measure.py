"""Seconds, floating-point operations, and what the device could do at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

WARM_UP_RUNS = 3
MOST_RUNS = 200


def name_device(device: torch.device) -> str:
    """The card's name, or ``cpu`` with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_runs(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median wall seconds of one run.

    Runs come in groups of a twentieth of ``seconds``, waited for at their ends only, as in a
    training: the host works ahead of the device.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    once = time.perf_counter() - started
    count = max(1, min(MOST_RUNS, int(seconds / 20 / max(once, 1e-6))))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or (time.perf_counter() < end and len(taken) < 20):
        started = time.perf_counter()
        for _ in range(count):
            run()
        wait(device)
        taken.append((time.perf_counter() - started) / count)
    return statistics.median(taken)


@cache
def measure_matmul_rate(device: torch.device, kind: str) -> float:
    """FLOP/s of a large product of random numbers: ``fp32``, ``tf32``, ``bf16`` or ``fp16``."""
    side = 8192 if device.type == "cuda" else 512
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    with use_tf32(kind == "tf32"):
        seconds = time_runs(lambda: a @ b, device, 0.5)
    return float(2 * side**3 / seconds)


@contextmanager
def use_tf32(wanted: bool) -> Iterator[None]:
    """Whether float32 products may run in TF32, inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """PyTorch's own counter follows modules too, which gradients of gradients do not allow."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry:
            with self:
                # In inference mode a linear layer arrives whole.
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        result = func(*args, **kwargs)
        self.total += flop_registry[packet](*args, **kwargs, out_val=result)
        return result


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of one run: products and convolutions, backward passes too."""
    with _FlopCounter() as counter:
        run()
    return int(counter.total)


def describe_share(flops: float, seconds: float, device: torch.device, kind: str) -> str:
    """``12.3 TFLOP/s, 41 % of the fp32 matmul rate``."""
    rate = flops / seconds
    most = measure_matmul_rate(device, kind)
    return f"{rate / 1e12:.3g} TFLOP/s, {100 * rate / most:.0f} % of the {kind} matmul rate"
