"""Value ranges; resizing by matrices, PyTorch's deterministic mode, is that of every other run."""

from __future__ import annotations

import pytest
import torch

from clipgan.images import resize, to_uint8, to_unit_range


def test_unit_range_is_exact_turns_back_and_leaves_its_input_alone() -> None:
    values = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    images, kept = to_unit_range(values), values.clone()
    assert images.dtype == torch.float32
    assert torch.equal(images, kept.float() / 127.5 - 1.0)
    assert torch.equal(to_uint8(images), values)
    assert torch.equal(values, kept)
    # The copy in place is one also of what is float32 already.
    floats = kept.float()
    to_unit_range(floats)
    assert torch.equal(floats, kept.float())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("height", "width", "side_px"), [(64, 64, 96), (57, 64, 32), (8, 9, 8)])
def test_deterministic_form_has_the_same_values_and_gradients(
    height: int, width: int, side_px: int, antialias: bool
) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=draws) * 2 - 1
    weights = torch.rand(2, 3, side_px, side_px, generator=draws)
    found = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            leaf = images.clone().requires_grad_()
            resized = resize(leaf, side_px, antialias=antialias)
            (gradient,) = torch.autograd.grad((resized * weights).sum(), leaf)
        finally:
            torch.use_deterministic_algorithms(False)
        found.append((resized.detach(), gradient))
    # Sums of at most some dozen products of numbers around 1, each rounded to 2^-24.
    assert torch.allclose(found[1][0], found[0][0], atol=5e-6)
    assert torch.allclose(found[1][1], found[0][1], atol=5e-6)
