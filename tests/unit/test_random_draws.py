"""Numbers for a batch that several processes share are those of one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clipgan.random_draws import build_rng, draw_integers, draw_normal, draw_uniform

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
