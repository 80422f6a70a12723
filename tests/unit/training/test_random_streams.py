"""Random numbers depend on a position alone."""

from __future__ import annotations

import torch

from clipgan.training.random_streams import StepRandom, derive_seed


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
