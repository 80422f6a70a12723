"""The number of threads that PyTorch computes with on the CPU: given, or chosen by measuring.

Threads wait for each other many times a step. On an idle machine two are faster than one; beside
other load they wait for a core that another program uses, and one is several times faster. So
``auto`` measures. The number changes the order of sums, and with it the last bits of a training:
docs/adr/0027-threads-are-chosen-by-measuring.md says which stages may change it when.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from clipgan.config import Threads

MEASUREMENT_SECONDS = 0.5
SLICES = 3
"""Each candidate is measured so many times, because the load of a machine varies."""
INTERVAL_SECONDS = 180.0
"""Time between two measurements where the number may change in the middle of a stage."""

logger = logging.getLogger(__name__)


def list_candidates(most: int) -> list[int]:
    """Powers of two below ``most``, and ``most``: the threads that PyTorch started with."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})


def choose_threads(
    candidates: list[int], work: Callable[[], object] | None = None, seconds: float | None = None
) -> int:
    """Set and return the number of threads that does most in a short time.

    Args:
        candidates: tried in turn, several times.
        work: done again and again; None: a convolution with its gradients, of the size of a step's.
        seconds: for all together; None: half a second.
    """
    if len(candidates) > 1:
        work = work or _build_work()
        share = (seconds or MEASUREMENT_SECONDS) / (SLICES * len(candidates))
        rates = dict.fromkeys(candidates, 0.0)
        for _ in range(SLICES):
            for count in candidates:
                torch.set_num_threads(count)
                rates[count] += _measure_rate(work, share)
        best = max(candidates, key=lambda count: rates[count])
    else:
        best = candidates[0]
    torch.set_num_threads(best)
    return best


def _measure_rate(work: Callable[[], object], seconds: float) -> float:
    work()  # the threads start
    done, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds or not done:
        work()
        done += 1
    return done / taken


def _build_work() -> Callable[[], object]:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(8, 32, 32, 32, generator=rng)
    kernel = torch.randn(32, 32, 3, 3, generator=rng)

    def work() -> object:
        # An evaluation that measures again is in inference mode.
        with torch.inference_mode(False), torch.enable_grad():
            weight = kernel.clone().requires_grad_()
            loss = F.leaky_relu(F.conv2d(images.clone(), weight, padding=1), 0.2).square().mean()
            return torch.autograd.grad(loss, weight)

    return work


def settle_threads(threads: Threads | None, before: int | None, *, may_measure: bool) -> None:
    """Set the number that a training keeps to its end.

    Args:
        threads: ``auto``: the number it has had so far, else what is best now; None: PyTorch's own.
        before: the number it has had so far; None: it starts.
        may_measure: False where others measure at the same moment, or a GPU computes: ``auto`` then
            leaves PyTorch's own.
    """
    if threads == "auto" and may_measure:
        choose_threads([before] if before else list_candidates(torch.get_num_threads()))
    elif isinstance(threads, int):
        torch.set_num_threads(threads)
    now = torch.get_num_threads()
    if may_measure and before not in (None, now):
        message = "%d threads went this far, now there are %d: the rest will differ by rounding"
        logger.warning(message, before, now)


class _Renewal:
    """A stage that measures again now and then."""

    def __init__(self, candidates: list[int]) -> None:
        self.candidates = candidates
        self.choose()

    def choose(self) -> None:
        """Measure and wait for the next time."""
        before = torch.get_num_threads()
        chosen = choose_threads(self.candidates)
        if chosen != before:
            logger.info("computing with %d threads instead of %d", chosen, before)
        self.due = time.monotonic() + INTERVAL_SECONDS


_renewal: _Renewal | None = None


@contextmanager
def follow_load(threads: Threads) -> Iterator[None]:
    """Inside, PyTorch computes with the given number of threads, or with what is best.

    With ``auto``, :func:`renew_threads` may change the number every few minutes.
    """
    global _renewal  # noqa: PLW0603 - the number of threads belongs to the process as well
    with keep_threads(threads):
        if threads == "auto":
            _renewal = _Renewal(list_candidates(torch.get_num_threads()))
        try:
            yield
        finally:
            _renewal = None


@contextmanager
def keep_threads(threads: Threads) -> Iterator[None]:
    """Inside, PyTorch computes with the given number of threads; ``auto`` leaves its own number.

    For stages whose resumed results are equal to the bit and that record no number.
    """
    before = torch.get_num_threads()
    if threads != "auto":
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def renew_threads() -> None:
    """Measure again if it is time. To be called between batches, inside :func:`follow_load`."""
    if _renewal is not None and time.monotonic() >= _renewal.due:
        _renewal.choose()
