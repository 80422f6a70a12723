"""Affine warps of image batches without aliasing, for augmentation (Karras et al. 2020).

Training generative adversarial networks with limited data, arXiv 2006.06676, appendix B: images are
doubled with a wavelet filter, sampled bilinearly, and halved with the same filter turned round.
Everything is linear in the images and can be differentiated as often as one likes (R1 needs twice);
PyTorch's own grid sampling cannot.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.devices import build_constant

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass filter of the symlet of order 6 (Daubechies 1992, table 6.3), orthonormal."""
_DELAY = sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6)
"""Centre of mass of the filter, which is not symmetric: not its middle (5.5)."""
_MARGIN = 3
"""Pixels beyond an image's edges that the halving filter looks at."""
_PAD = _MARGIN + 4
"""Pixels of mirror image around an image, so that the doubled margin is exact."""
_BILINEAR, _ZEROS = 0, 0


def warp_images(images: Tensor, sources: Tensor) -> Tensor:
    """Apply affine maps to images; beyond its edges an image is continued by its mirror image.

    A row whose map is exactly the identity passes unchanged.

    Args:
        images: (N, C, H, W) float32, H and W at least 8.
        sources: (N, 3, 3) float32, from a place in the result to the one in the image that is
            shown there; homogeneous (x, y, 1) in pixels from the image's centre.

    Returns:
        (N, C, H, W).
    """
    height, width = images.shape[2:]
    fine = _double(F.pad(images, (_PAD,) * 4, mode="reflect"))
    grid = torch.stack(
        [
            _place(places, side, fine_side)
            for places, side, fine_side in zip(
                _find_sources(sources, height, width),
                (width, height),
                (fine.shape[3], fine.shape[2]),
                strict=True,
            )
        ],
        dim=-1,
    )
    warped = _halve(_Sample.apply(fine, grid))
    identity = torch.eye(3, device=sources.device, dtype=sources.dtype)
    untouched = (sources == identity).all((1, 2))[:, None, None, None]
    return torch.where(untouched, images, warped)


def _find_sources(sources: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Source x and y, (N, 2H + 10, 2W + 10) pixels from the centre, of the doubled result."""
    x = _list_fine_places(width, sources)
    y = _list_fine_places(height, sources)
    rows = sources[:, :2, :, None, None]
    places = rows[:, :, 0] * x + rows[:, :, 1] * y[:, None] + rows[:, :, 2]
    return places[:, 0], places[:, 1]


def _list_fine_places(side: int, like: Tensor) -> Tensor:
    """Pixels from the centre of every sample that :func:`_halve` reads, (2 * side + 10,)."""
    steps = torch.arange(2 * side + len(SYM6) - 2, device=like.device, dtype=like.dtype)
    return (steps - _DELAY) / 2 - (side - 1) / 2


def _place(from_centre: Tensor, side: int, fine_side: int) -> Tensor:
    """Places in pixels from the centre -> places in the doubled, padded image, in [-1, 1]."""
    last = side - 1
    # A triangle wave: the image, its mirror image, the image, ...
    mirrored = last - ((from_centre + last / 2).remainder(2 * last) - last).abs()
    # The filter is not symmetric, so the doubled mirror image is used where there is one.
    near = from_centre.abs() <= last / 2 + _MARGIN
    fine = 2 * (torch.where(near, from_centre + last / 2, mirrored) + _PAD) + _DELAY
    return fine * (2 / (fine_side - 1)) - 1


def _double(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H + 10, 2W + 10)."""
    kernel = _build_kernel(images)
    flat = images.flatten(0, 1)[:, None]
    for taps in (kernel[:, None], kernel[None]):
        stride = (2, 1) if taps.shape[1] == 1 else (1, 2)
        flat = F.conv_transpose2d(flat, taps[None, None] * math.sqrt(2.0), stride=stride)
    return flat.view(*images.shape[:2], *flat.shape[2:])


def _halve(images: Tensor) -> Tensor:
    """(N, C, 2H + 10, 2W + 10) -> (N, C, H, W); undoes :func:`_double`."""
    kernel = _build_kernel(images)
    flat = images.flatten(0, 1)[:, None]
    for taps in (kernel[:, None], kernel[None]):
        stride = (2, 1) if taps.shape[1] == 1 else (1, 2)
        flat = F.conv2d(flat, taps[None, None] / math.sqrt(2.0), stride=stride)
    return flat.view(*images.shape[:2], *flat.shape[2:])


def _build_kernel(like: Tensor) -> Tensor:
    return build_constant(SYM6, like.device, like.dtype)


class _Sample(torch.autograd.Function):
    """Bilinear sampling at (N, h, w, 2) places in [-1, 1]; no gradient for the places."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape
        return F.grid_sample(
            images, grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(gradients[0], grid, ctx.size), None


class _Scatter(torch.autograd.Function):
    """The adjoint of :class:`_Sample`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        scattered: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            values.contiguous(),
            values.new_empty(()).expand(size),  # its numbers matter to the places' gradient only
            grid,
            _BILINEAR,
            _ZEROS,
            True,
            [True, False],
        )[0]
        return scattered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradients[0], grid), None, None
