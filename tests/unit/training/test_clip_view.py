"""What CLIP sees of a generated image: crops, the whole, several crops, white around small ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clipgan.families.lafite.config import ClipViewConfig
from clipgan.families.lafite.training.clip_view import draw_clip_views
from clipgan.random_draws import StepRandom

SIDE = 8
PLACES = torch.arange(SIDE * SIDE, dtype=torch.float32).view(1, 1, SIDE, SIDE)


def _config(**changes: Any) -> ClipViewConfig:
    tree = {
        "kind": "random_crop",
        "min_side": 0.5,
        "crops": 3,
        "small_images": "resize",
        "antialias": True,
    }
    return ClipViewConfig.model_validate(tree | changes)


def _random(seed: int = 0) -> StepRandom:
    random = StepRandom(torch.device("cpu"))
    random.seed(seed)
    return random


def test_a_random_crop_is_any_square_from_the_smallest_side() -> None:
    random = _random()
    sides, corners = set(), set()
    for _ in range(500):
        (view,) = draw_clip_views(PLACES, _config(), 12, random)
        assert view.shape[-1] == view.shape[-2]
        sides.add(view.shape[-1])
        corners.add((int(view[0, 0, 0, 0]), int(view[0, 0, -1, -1])))
    assert sides == set(range(SIDE // 2, SIDE + 1))
    # Squares of side s fit in (9 - s)^2 places: 25 + 16 + 9 + 4 + 1.
    assert len(corners) == 55


@pytest.mark.parametrize("changes", [{"kind": "full"}, {"min_side": 1.0}])
def test_the_whole_image(changes: dict[str, Any]) -> None:
    (view,) = draw_clip_views(PLACES, _config(**changes), 12, _random())
    assert torch.equal(view, PLACES)


def test_a_full_view_draws_no_random_numbers() -> None:
    random = _random()
    draw_clip_views(PLACES, _config(kind="full"), 12, random)
    assert random.draw_fraction() == _random().draw_fraction()


def test_several_crops_are_drawn_one_after_the_other() -> None:
    views = draw_clip_views(PLACES, _config(kind="multi_crop"), 12, _random())
    random = _random()
    wanted = [draw_clip_views(PLACES, _config(), 12, random)[0] for _ in range(3)]
    assert len(views) == 3
    assert all(torch.equal(view, other) for view, other in zip(views, wanted, strict=True))
    assert len({view.sum().item() for view in views}) > 1


def test_small_images_are_put_anywhere_on_white() -> None:
    images = PLACES - 1000.0
    random, corners = _random(), set()
    for _ in range(400):
        (view,) = draw_clip_views(images, _config(small_images="pad_white"), 10, random)
        assert view.shape == (1, 1, 10, 10)
        inside = view[0, 0] < 0
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        top, left = int(rows[0]), int(columns[0])
        assert torch.equal(view[:, :, top : top + SIDE, left : left + SIDE], images)
        assert (view[0, 0][~inside] == 1.0).all()
        assert inside.sum() == SIDE * SIDE
        corners.add((top, left))
    assert len(corners) == 9


def test_images_of_clips_side_are_cropped_and_not_padded() -> None:
    config = _config(small_images="pad_white", min_side=0.5)
    (view,) = draw_clip_views(PLACES, config, SIDE, _random())
    assert view.shape[-1] <= SIDE
    assert torch.equal(view, draw_clip_views(PLACES, _config(), SIDE, _random())[0])


def test_without_antialias_the_view_has_clips_side() -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    for kind in ("full", "random_crop"):
        crops = draw_clip_views(images, _config(kind=kind), 12, _random())
        views = draw_clip_views(images, _config(kind=kind, antialias=False), 12, _random())
        wanted = F.interpolate(crops[0], size=(12, 12), mode="bicubic", align_corners=False)
        assert torch.equal(views[0], wanted)


def test_gradients_reach_the_images() -> None:
    for changes in ({}, {"small_images": "pad_white"}, {"antialias": False}):
        images = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
        views = draw_clip_views(images, _config(min_side=1.0, **changes), 12, _random())
        sum(view.sum() for view in views).backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
