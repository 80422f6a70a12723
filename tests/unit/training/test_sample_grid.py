"""What is measured of a grid of samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.training.sample_grid import compute_retrieval, measure_differences


def draw_sheet(prompts: float, latents: float) -> Tensor:
    """4 prompts by 3 latents that move each pixel by so much; (12, 3, 8, 8)."""
    draws = torch.Generator().manual_seed(0)
    moves = [scale * torch.randn(shape, generator=draws) for scale, shape in
             ((prompts, (4, 1, 3, 8, 8)), (latents, (1, 3, 3, 8, 8)))]  # fmt: skip
    return (128 + sum(moves)).clamp(0, 255).to(torch.uint8).flatten(0, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize(("prompts", "latents"), [(0.0, 20.0), (20.0, 0.0), (0.0, 0.0), (9.0, 4.0)])
def test_only_what_makes_a_difference_is_above_zero(prompts: float, latents: float) -> None:
    found = measure_differences(draw_sheet(prompts, latents), 3)
    # A mean distance to the mean of a few is somewhat smaller than the scale of the moves.
    for name, scale in (("prompt_difference", prompts), ("sample_diversity", latents)):
        assert 0.4 * scale <= found[name] <= 0.9 * scale, name


def test_two_greys_differ_by_half_their_distance() -> None:
    pictures = torch.tensor([100, 110]).view(2, 1, 1, 1).expand(2, 3, 4, 4).to(torch.uint8)
    assert measure_differences(pictures, 2) == {"sample_diversity": 5.0}
    assert measure_differences(pictures, 1) == {"prompt_difference": 5.0}


def test_one_picture_says_nothing() -> None:
    assert measure_differences(draw_sheet(0.0, 0.0)[:1], 1) == {}


def test_retrieval_is_one_where_every_prompt_is_found_and_zero_by_chance() -> None:
    prompts = torch.eye(4)
    assert compute_retrieval(prompts.repeat_interleave(3, dim=0), prompts) == 1.0
    # Every image looks like the first prompt: a quarter is right, as by chance.
    assert compute_retrieval(prompts[:1].repeat(12, 1), prompts) == 0.0
    draws = torch.Generator().manual_seed(0)
    noise = F.normalize(torch.randn(4000, 4, generator=draws), dim=1)
    assert compute_retrieval(noise, prompts) == pytest.approx(0.0, abs=0.03)
