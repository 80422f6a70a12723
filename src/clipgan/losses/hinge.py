"""The hinge GAN loss (Lim and Ye, arXiv 1705.02894): no gradient where a logit is beyond 1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def compute_real_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 - logit)``: real images with their own texts; (N,) -> scalar."""
    return F.relu(1.0 - logits).mean()


def compute_fake_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 + logit)``: fakes, and real images with others' texts; (N,) -> scalar."""
    return F.relu(1.0 + logits).mean()


def compute_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 - real)`` plus mean of ``max(0, 1 + fake)``; (N,), (M,) -> scalar."""
    return compute_real_hinge(real_logits) + compute_fake_hinge(fake_logits)


def compute_generator_loss(fake_logits: Tensor) -> Tensor:
    """``-mean(logit)`` over generated images; (N,) -> scalar."""
    return -fake_logits.mean()
