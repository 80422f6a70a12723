"""DiffAugment: what each change does, and that gradients pass twice."""

from __future__ import annotations

import pytest
import torch

from clipgan.training.augment import augment_images

SIDE = 16


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=_random(1)) * 2 - 1


def test_no_kinds_is_the_identity() -> None:
    images = _images()
    assert augment_images(images, (), _random()) is images


def test_translation_moves_whole_images_by_at_most_an_eighth() -> None:
    # A single bright pixel in the middle: where it lands is the shift.
    images = torch.zeros(256, 3, SIDE, SIDE)
    images[:, :, 8, 8] = torch.tensor([1.0, 2.0, 3.0])
    moved = augment_images(images, ("translation",), _random())
    assert torch.equal(moved.sum((2, 3)), images.sum((2, 3)))
    places = moved[:, 2].flatten(1).argmax(1)
    shifts_y, shifts_x = places // SIDE - 8, places % SIDE - 8
    for shifts in (shifts_y, shifts_x):
        assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    assert not torch.equal(shifts_y, shifts_x)


def test_translation_fills_with_zeros() -> None:
    moved = augment_images(torch.ones(64, 3, SIDE, SIDE), ("translation",), _random())
    kept = moved[:, 0].sum((1, 2)).unique().tolist()
    assert min(kept) == (SIDE - 2) ** 2
    assert max(kept) == SIDE**2
    assert set(moved.unique().tolist()) == {0.0, 1.0}


def test_cutout_removes_at_most_a_square_of_half_the_side() -> None:
    cut = augment_images(torch.ones(512, 3, SIDE, SIDE), ("cutout",), _random())
    removed = SIDE**2 - cut[:, 0].sum((1, 2))
    assert removed.max() == (SIDE // 2) ** 2
    # A centre in a corner leaves a quarter of the square inside the image.
    assert removed.min() == (SIDE // 4) ** 2
    assert torch.equal(cut[:, 0], cut[:, 2])


def test_color_keeps_the_expected_image_and_stays_in_its_ranges() -> None:
    images = _images(1).expand(4096, -1, -1, -1)
    changed = augment_images(images, ("color",), _random())
    assert torch.allclose(changed.mean(0), images[0], atol=0.05)
    shift = changed.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert shift.abs().max() <= 0.5 + 1e-5
    assert shift.abs().max() > 0.45


def test_color_of_a_grey_image_is_brightness_alone() -> None:
    changed = augment_images(torch.zeros(8, 3, SIDE, SIDE), ("color",), _random())
    assert torch.allclose(changed.std((1, 2, 3)), torch.zeros(8), atol=1e-6)


def test_same_stream_same_change() -> None:
    kinds = ("color", "translation", "cutout")
    first = augment_images(_images(), kinds, _random(5))
    assert torch.equal(first, augment_images(_images(), kinds, _random(5)))
    assert not torch.equal(first, augment_images(_images(), kinds, _random(6)))


@pytest.mark.parametrize("kind", ["color", "translation", "cutout"])
def test_gradients_pass_twice(kind: str) -> None:
    images = _images(2).double()[..., :8, :8].clone().requires_grad_()

    def square(x: torch.Tensor) -> torch.Tensor:
        return augment_images(x, (kind,), _random(3)).pow(3).sum((1, 2, 3))  # type: ignore[arg-type]

    assert torch.autograd.gradgradcheck(square, (images[:1],), atol=1e-3)
