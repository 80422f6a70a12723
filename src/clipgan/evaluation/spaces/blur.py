"""Gaussian blur of images before FID-k (Ramesh et al. 2021).

No library serves: torchvision's ``gaussian_blur`` reflects the edges, for which a small image has
too few pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRUNCATE = 4.0
"""The kernel ends after this many standard deviations."""


def blur(images_uint8: Tensor, radius_px: int) -> Tensor:
    """Blur with standard deviation ``radius_px`` and repeated edges; round back to uint8.

    Args:
        images_uint8: (N, 3, H, W) uint8.
    """
    reach = math.ceil(TRUNCATE * radius_px)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images_uint8.device)
    kernel = torch.exp(-places.square() / (2 * radius_px**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = images_uint8.float().flatten(0, 1)[:, None]
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel)
    upright = kernel.transpose(2, 3)
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), upright)
    return planes.view(images_uint8.shape).round().clamp(0, 255).to(torch.uint8)
