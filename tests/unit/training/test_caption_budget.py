"""The caption budget: as many as asked for, by seed, nested, whatever the order of the files."""

from __future__ import annotations

import numpy as np
import pytest

from clipgan.errors import DataError
from clipgan.training.caption_budget import choose_captioned

IDS = [f"{number:04d}" for number in range(1000)]
ONE_EACH = np.ones(1000, dtype=np.int64)


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.1, 100), (0.5, 500), (1.0, 1000)])
def test_it_is_met_exactly(fraction: float, count: int) -> None:
    assert choose_captioned(IDS, ONE_EACH, fraction, 0).sum() == count


def test_it_is_spread_over_the_files_and_not_their_tail() -> None:
    chosen = choose_captioned(IDS, ONE_EACH, 0.5, 0)
    for tenth in np.split(chosen, 10):
        assert 30 < tenth.sum() < 70


def test_smaller_budgets_are_part_of_larger_ones() -> None:
    small, large = (choose_captioned(IDS, ONE_EACH, fraction, 3) for fraction in (0.1, 0.4))
    assert not (small & ~large).any()


def test_it_follows_the_seed_and_not_the_order() -> None:
    chosen = choose_captioned(IDS, ONE_EACH, 0.2, 0)
    backwards = choose_captioned(IDS[::-1], ONE_EACH, 0.2, 0)
    assert (backwards[::-1] == chosen).all()
    assert (choose_captioned(IDS, ONE_EACH, 0.2, 1) != chosen).any()


def test_it_takes_captioned_images_only() -> None:
    counts = np.where(np.arange(1000) % 2, 3, 0)
    chosen = choose_captioned(IDS, counts, 0.5, 0)
    assert (chosen == (counts > 0)).all()
    assert not choose_captioned(IDS, counts, 0.3, 0)[counts == 0].any()


def test_more_than_there_are_is_refused_with_the_largest_fraction() -> None:
    counts = np.where(np.arange(1000) < 333, 1, 0)
    message = r"667 of 1,000 .* caption_fraction = 0\.5 needs those of 500: set it to 0\.333"
    with pytest.raises(DataError, match=message):
        choose_captioned(IDS, counts, 0.5, 0)
    assert choose_captioned(IDS, counts, 0.333, 0).sum() == 333
