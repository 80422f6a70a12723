"""Multi-scale L1 distance to the image whose feature is the condition (not in the paper).

In language-free training the condition is made from an image, so that image is a target, while its
mirror image never is (``Batch.feature_images``). The term helps with small data sets and short
trainings, where an adversarial loss alone would need millions of images.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

POOLINGS = (1, 2, 4, 8)
"""Sides in pixels of the cells that are averaged, for details, strokes, parts and colours."""


def compute_reconstruction_loss(fake_images: Tensor, images: Tensor) -> Tensor:
    """Average the mean absolute difference of the pooled images over :data:`POOLINGS`.

    Args:
        fake_images, images: (N, 3, R, R) float32 in about [-1, 1], pair i in row i of both.

    Returns:
        Scalar, the same unit as the pixels.
    """
    difference = fake_images - images
    # Averaging is linear, so the difference is pooled once instead of both images.
    distances = [F.avg_pool2d(difference, cell).abs().mean() for cell in POOLINGS]
    return sum(distances[1:], distances[0]) / len(POOLINGS)


def fade_weight(weight: float, images: int, fade_images: int) -> float:
    """``weight * max(0, 1 - images / fade_images)``: from ``weight`` to 0 in a straight line.

    Args:
        images: of adversarial training so far.
        fade_images: after which the weight is 0; 0: it never fades.
    """
    return weight * max(0.0, 1.0 - images / fade_images) if fade_images else weight
