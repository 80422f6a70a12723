from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clipgan.data.splits import compute_split
from clipgan.schemas import TRAIN, VALIDATION


def test_the_fraction_is_met() -> None:
    splits = [compute_split(f"concept {i}", validation_fraction=0.1, seed=0) for i in range(20_000)]
    assert abs(splits.count(VALIDATION) / 20_000 - 0.1) < 0.01


def test_the_split_is_pinned() -> None:
    # A silent change of the hash would move held-out concepts into training.
    names = ["red apple", "gloves", "dog", "crab", "person"]
    splits = [compute_split(name, validation_fraction=0.1, seed=0) for name in names]
    assert splits == [TRAIN, VALIDATION, TRAIN, VALIDATION, TRAIN]


def test_seeds_differ_and_the_ends_hold() -> None:
    names = [f"concept {i}" for i in range(200)]
    by_seed = [[compute_split(n, validation_fraction=0.5, seed=s) for n in names] for s in (0, 1)]
    assert by_seed[0] != by_seed[1]
    assert all(compute_split(n, validation_fraction=0.0, seed=0) == TRAIN for n in names)


@given(st.text(), st.integers(0, 2**31 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_keeps_what_was_held_out(
    concept: str, seed: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    if compute_split(concept, validation_fraction=small, seed=seed) == VALIDATION:
        assert compute_split(concept, validation_fraction=large, seed=seed) == VALIDATION
