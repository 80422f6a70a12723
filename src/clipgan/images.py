"""Value ranges, resizing and CLIP's normalisation: ranges are converted nowhere else.

The whole project uses two forms: ``images`` are float tensors (N, 3, H, W) in [-1, 1], RGB;
``images_uint8`` are uint8 tensors (N, 3, H, W) in 0..255.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.devices import build_constant

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Per-channel mean of CLIP's training images (Radford et al. 2021), RGB in [0, 1]."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Per-channel standard deviation of CLIP's training images, RGB in [0, 1]."""


def to_unit_range(images_uint8: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]; 127.5 maps to 0 (StyleGAN's convention)."""
    # In place: each further tensor of this size costs more than the arithmetic.
    return images_uint8.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 0..255, rounded to nearest; values outside are clamped."""
    return (images.to(torch.float32) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def resize(images: Tensor, side_px: int, *, antialias: bool = True) -> Tensor:
    """Bicubic to (N, 3, side_px, side_px); the identity where the size fits.

    Without ``antialias`` the kernel is sharper too (a = -0.75 for -0.5), also when enlarging.
    """
    if images.shape[-2:] == (side_px, side_px):
        return images
    if torch.are_deterministic_algorithms_enabled():
        return _resize_by_matrices(images, side_px, antialias)
    return _interpolate(images, (side_px, side_px), antialias)


def _interpolate(images: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    return F.interpolate(
        images, size=size, mode="bicubic", align_corners=False, antialias=antialias
    )


def _resize_by_matrices(images: Tensor, side_px: int, antialias: bool) -> Tensor:
    """Resize by two matrix products: PyTorch's own form has no deterministic gradient on a GPU."""
    rows, columns = (
        # The unit vectors of one axis, resized.
        _interpolate(torch.eye(side, device=images.device)[None, None], (side_px, side), antialias)
        for side in images.shape[-2:]
    )
    resized: Tensor = rows.to(images.dtype) @ images @ columns.to(images.dtype).transpose(-1, -2)
    return resized


def normalize(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """[-1, 1] -> zero mean and unit deviation for a network trained on RGB in [0, 1]."""
    shape = (1, 3, 1, 1)
    mean_t = build_constant(mean, images.device, images.dtype).view(shape)
    std_t = build_constant(std, images.device, images.dtype).view(shape)
    return (images * 0.5 + 0.5 - mean_t) / std_t


def to_clip_input(
    images: Tensor,
    side_px: int,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> what a CLIP image tower expects: resized, [0, 1], mean, std."""
    return normalize(resize(images, side_px), mean, std)
