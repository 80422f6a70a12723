"""Warps: the filter is the published one, known maps give known images, gradients pass twice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipgan.training.image_warp import SYM6, warp_images

SIDE = 16


def _smooth() -> Tensor:
    """(1, 3, 16, 16) of low frequency, not symmetric, flat at its edges."""
    places = torch.linspace(0.0, math.pi, SIDE)
    picture = (2 * places).cos()[:, None] * 0.5 + places.cos()[None] * 0.3
    return picture.expand(1, 3, SIDE, SIDE).contiguous()


def _move(x: float, y: float = 0.0) -> Tensor:
    return torch.tensor([[[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]])


def _linear(*entries: float) -> Tensor:
    matrix = torch.eye(3)
    matrix[:2, :2] = torch.tensor(entries).view(2, 2)
    return matrix[None]


def test_filter_is_orthonormal_with_six_vanishing_moments() -> None:
    """What makes a symlet of order 6: unit norm, even shifts orthogonal, smooth to degree 5."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    products = [float((taps[2 * k :] * taps[: 12 - 2 * k]).sum()) for k in range(6)]
    assert products == pytest.approx([1.0, 0, 0, 0, 0, 0], abs=1e-11)
    assert float(taps.sum()) == pytest.approx(math.sqrt(2.0))
    places = torch.arange(12, dtype=torch.float64)
    alternating = taps * (-1.0) ** places
    for power in range(6):
        assert abs(float((alternating * places**power).sum())) < 1e-6


def test_identity_is_exact_and_near_it_nothing_breaks_not_even_at_the_edges() -> None:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(warp_images(images, torch.eye(3).repeat(2, 1, 1)), images)
    assert torch.allclose(warp_images(images, _move(1e-6).repeat(2, 1, 1)), images, atol=2e-5)


def test_whole_pixel_shifts_are_exact_and_show_the_mirror_image_beyond_the_edge() -> None:
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    shifted = warp_images(images, _move(2.0, -1.0))
    assert torch.allclose(shifted[..., 1:, :-2], images[..., :-1, 2:], atol=1e-5)
    assert torch.allclose(shifted[..., 1:, -1], images[..., :-1, SIDE - 3], atol=0.01)


def test_flips_turns_and_half_pixels_are_where_they_should_be() -> None:
    images = _smooth()
    flipped = warp_images(images, _linear(-1, 0, 0, 1))
    assert torch.allclose(flipped, images.flip(-1), atol=0.01)
    turned = warp_images(images, _linear(0, -1, 1, 0))
    assert torch.allclose(turned, torch.rot90(images, 1, (2, 3)), atol=0.01)
    between = (images[..., :-1] + images[..., 1:]) / 2
    assert torch.allclose(warp_images(images, _move(0.5))[..., :-1], between, atol=0.01)


def test_shrinking_does_not_alias() -> None:
    """Stripes of one pixel, shown at half the size, are grey."""
    stripes = torch.ones(1, 1, SIDE, SIDE)
    stripes[..., ::2] = -1.0
    shrunk = warp_images(stripes, _linear(2, 0, 0, 2))
    assert float(shrunk[..., 5:11, 5:11].abs().max()) < 0.15


def test_gradients_pass_twice() -> None:
    images = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images.requires_grad_()
    source = (_linear(0.9, -0.4, 0.3, 1.1) + _move(0.3, 1.7) - torch.eye(3)).double()

    def cube(x: Tensor) -> Tensor:
        return warp_images(x, source).pow(3).sum((1, 2, 3))

    assert torch.autograd.gradcheck(cube, (images,))
    assert torch.autograd.gradgradcheck(cube, (images,))
