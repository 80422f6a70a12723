"""Random numbers as a function of a position, so that a resumed run needs no hidden state."""

from __future__ import annotations

import hashlib

import torch

from clipgan.random_draws import build_rng


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
