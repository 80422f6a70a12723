"""Random numbers depend on a position alone, and processes that share a batch draw one batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clipgan.random_draws import (
    StepRandom,
    build_rng,
    derive_seed,
    draw_integers,
    draw_normal,
    draw_uniform,
)

CPU = torch.device("cpu")
DRAWS: list[Callable[[int, torch.Generator], Tensor]] = [
    lambda rows, generator: draw_normal((rows, 3), generator),
    lambda rows, generator: draw_uniform((rows,), generator, dtype=torch.float64),
    lambda rows, generator: draw_integers(2, 9, (rows, 1, 2), generator),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_take_turns_in_the_rows_of_one_batch(
    draw: Callable[[int, torch.Generator], Tensor], count: int
) -> None:
    whole = draw(4 * count, build_rng(CPU).manual_seed(5))
    for rank in range(count):
        generator = build_rng(CPU, rank=rank, num_processes=count).manual_seed(5)
        assert torch.equal(draw(4, generator), whole[rank::count])


def test_one_process_draws_what_pytorch_draws() -> None:
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    single = build_rng(CPU).manual_seed(1)
    assert torch.equal(draw_normal((5, 2), single), torch.randn(5, 2, generator=seeded()))
    assert torch.equal(draw_uniform((5,), seeded()), torch.rand(5, generator=seeded()))
    expected = torch.randint(3, 8, (50,), generator=seeded())
    assert torch.equal(draw_integers(3, 7, (50,), seeded()), expected)


def test_seed_is_a_function_of_its_parts() -> None:
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
    seeds = {
        derive_seed(seed, rollbacks, 0, seen)
        for seed in (0, 1)
        for rollbacks in (0, 1)
        for seen in range(0, 640, 16)
    }
    assert len(seeds) == 2 * 2 * 40
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_does_not_join_parts() -> None:
    assert derive_seed(1, 12) != derive_seed(11, 2)


def test_streams_restart_and_are_independent_of_the_global_one() -> None:
    random = StepRandom(torch.device("cpu"))
    random.seed(3, 0, 0, 64)
    torch.manual_seed(1)
    first = (torch.randn(4, generator=random.rng), random.draw_fraction())
    random.seed(3, 0, 0, 80)
    random.seed(3, 0, 0, 64)
    torch.manual_seed(2)
    torch.randn(7)
    again = (torch.randn(4, generator=random.rng), random.draw_fraction())
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]


def test_integers_cover_both_ends() -> None:
    random = StepRandom(torch.device("cpu"))
    random.seed(0)
    drawn = {random.draw_integer(2, 4) for _ in range(200)}
    assert drawn == {2, 3, 4}
