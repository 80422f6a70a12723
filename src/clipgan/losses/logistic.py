"""The non-saturating logistic GAN loss (Goodfellow et al., arXiv 1406.2661)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def compute_generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-logit)`` over generated images; (N,) -> scalar."""
    return F.softplus(-fake_logits).mean()


def compute_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-real)`` plus mean of ``softplus(fake)``; (N,), (M,) -> scalar."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
