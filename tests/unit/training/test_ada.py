"""ADA: which changes are drawn how often, and how the probability follows the discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipgan.training.ada import (
    AdaptiveAugmenter,
    change_colors,
    draw_colors,
    draw_geometry,
)
from tests.params import params_with

BATCH = 50


def _augmenter(**changes: object) -> AdaptiveAugmenter:
    keys = {f"train.augmentation.{key}": value for key, value in changes.items()}
    config = params_with({"train.augmentation.kind": "ada", **keys}).train.augmentation
    return AdaptiveAugmenter(config, BATCH, torch.device("cpu"))


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 4096, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=_random(1)) * 2 - 1


def test_probability_zero_changes_nothing() -> None:
    images = _images(8)
    assert torch.allclose(_augmenter().augment(images, _random()), images, atol=1e-5)


def test_changes_happen_as_often_as_the_probability_says() -> None:
    """Of seven independent geometric changes flips and turns do nothing in 1/2 and 1/4 of cases."""
    p = 0.3
    untouched = (draw_geometry(_images(), _number(p), _random()) == torch.eye(3)).all((1, 2))
    # The two rotations together happen with p; the whole-pixel shift of an 8 px image is 0 in
    # half of the cases for either axis.
    shift_stays = (1 - p / 2) ** 2
    expected = (1 - p / 2) * (1 - 3 * p / 4) * shift_stays * (1 - p) ** 2 * (1 - p) * (1 - p) ** 2
    assert float(untouched.float().mean()) == pytest.approx(expected, abs=0.02)


def test_geometry_keeps_the_expected_scale_and_turns_all_round() -> None:
    maps = draw_geometry(_images(), _number(1.0), _random())
    determinant = torch.linalg.det(maps[:, :2, :2]).abs()
    # Only isotropic scaling changes areas: the logarithm to base 2 is 2 * N(0, 0.2^2).
    assert float(determinant.log2().mean()) == pytest.approx(0.0, abs=0.03)
    assert float(determinant.log2().std()) == pytest.approx(0.4, abs=0.02)
    flipped = (torch.linalg.det(maps[:, :2, :2]) < 0).float().mean()
    assert float(flipped) == pytest.approx(0.5, abs=0.03)
    angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
    quarters = torch.histc(angles, bins=4, min=-math.pi, max=math.pi) / len(angles)
    assert torch.allclose(quarters, torch.full((4,), 0.25), atol=0.03)


def test_hue_turns_about_grey_and_saturation_leaves_it() -> None:
    """Each colour map is affine in grey and its linear part commutes with the projection on it."""
    maps = draw_colors(_images(256), _number(1.0), _random())
    grey = torch.full((3, 3), 1 / 3)
    linear = maps[:, :3, :3]
    assert torch.allclose(linear @ grey, grey @ linear, atol=1e-4)
    across = torch.eye(3) - grey
    chroma = across @ linear @ across
    scale = chroma.square().sum((1, 2)).div(2).sqrt()
    product = chroma @ chroma.transpose(1, 2)
    assert torch.allclose(product, scale.square()[:, None, None] * across, rtol=1e-3, atol=1e-3)
    # Contrast times saturation: standard deviations 0.5 and 1 of the base-2 logarithm.
    assert float(scale.log2().std()) == pytest.approx(math.hypot(0.5, 1.0), abs=0.12)


def test_colors_of_a_grey_image_stay_grey() -> None:
    images = torch.full((64, 3, 2, 2), 0.25)
    changed = change_colors(images, draw_colors(images, _number(1.0), _random()))
    assert torch.allclose(changed.std(1), torch.zeros(64, 2, 2), atol=1e-5)
    assert float(changed.std()) > 0.1


def test_gradients_pass_twice() -> None:
    images = _images(1, 8).requires_grad_()
    augmenter = _augmenter()
    augmenter.probability.fill_(1.0)
    out = augmenter.augment(images, _random(3)).square().sum()
    (gradient,) = torch.autograd.grad(out, images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert float(second.abs().sum()) > 0


def test_probability_rises_by_the_images_seen_and_falls_again() -> None:
    augmenter = _augmenter(ada_target=0.6, ada_interval_steps=4, ada_kimg=2)
    reports = [augmenter.observe(_number(sign)) for sign in (1.0, 1.0, 0.4, 0.4)]
    # Mean sign 0.7 is above the target: 4 steps of 50 images over 2,000.
    assert [r["augmentation_probability"] for r in reports] == [0, 0, 0, pytest.approx(0.1)]
    for _ in range(4):
        augmenter.observe(_number(0.9))
    assert float(augmenter.probability) == pytest.approx(0.2)
    for _ in range(12):
        augmenter.observe(_number(0.5))
    assert augmenter.probability == 0.0, "it never falls below zero"


def test_probability_never_exceeds_one() -> None:
    augmenter = _augmenter(ada_interval_steps=1, ada_kimg=0.06)
    for _ in range(3):
        augmenter.observe(_number(1.0))
    assert augmenter.probability == 1.0


def test_state_survives_in_the_middle_of_an_interval() -> None:
    first, second = _augmenter(ada_kimg=2), _augmenter(ada_kimg=2)
    for sign in (1.0, 1.0, 1.0, 1.0, 0.9, 0.8):
        first.observe(_number(sign))
    second.restore_state(first.capture_state())
    for augmenter in (first, second):
        augmenter.observe(_number(0.7))
        augmenter.observe(_number(0.1))
    assert float(second.probability) == float(first.probability) == pytest.approx(0.2)
