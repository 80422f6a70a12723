"""One process in a group of its own: NCCL's collectives on a card, gloo's on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from clipgan.training import distributed
from clipgan.training.distributed import Processes
from tests.gpu.setups import FAMILIES, build_step, run_step


@pytest.fixture
def group(device: torch.device) -> Iterator[Processes]:
    store = dist.HashStore()
    if device.type == "cuda":
        torch.cuda.set_device(0)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield Processes(0, 1)
    finally:
        dist.destroy_process_group()


def test_collectives(group: Processes, device: torch.device) -> None:
    values = torch.arange(6.0, device=device).view(3, 2).requires_grad_()
    mean = distributed._Average.apply(values)
    rows = distributed._GatherRows.apply(values)
    assert torch.equal(mean, values)
    assert torch.equal(rows, values)
    (gradient,) = torch.autograd.grad((rows * mean).sum(), values)
    assert torch.equal(gradient, 2 * values)
    dist.barrier()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_a_group_of_one_is_a_step(
    family: str,
    group: Processes,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = run_step(build_step(family, device), device, 0).read()
    together = build_step(family, device, lafite__losses__gather_negatives=True)
    monkeypatch.setattr(Processes, "average", lambda self, v: distributed._Average.apply(v))
    monkeypatch.setattr(Processes, "all_gather", lambda self, v: distributed._GatherRows.apply(v))
    found = run_step(together, device, 0).read()
    assert found.keys() == alone.keys()
    first = "clip_contrastive" if family == "lafite" else "matched_hinge"
    assert found[first] == pytest.approx(alone[first], rel=1e-5)
