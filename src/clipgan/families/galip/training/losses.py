"""The losses of GALIP's two networks (arXiv 2301.12959, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_discriminator_hinge(
    matched: Tensor, mismatched: Tensor, fake: Tensor, mismatched_share: float
) -> Tensor:
    """Weighted sum of the three hinge terms, each a scalar: ``matched`` has weight 1, the other two
    share 1; in the paper each of them has a half."""
    return matched + mismatched_share * mismatched + (1.0 - mismatched_share) * fake


def compute_clip_similarity(embeddings: Tensor, text_features: Tensor) -> Tensor:
    """Mean cosine of image embeddings and their texts; (N, D) of any length, twice -> scalar."""
    return F.cosine_similarity(embeddings.float(), text_features.float(), dim=1).mean()


def compute_ma_gp(
    matched_logits: Tensor,
    inputs: Sequence[Tensor],
    *,
    power: float,
    gradient_scale: float | Tensor = 1.0,
) -> Tensor:
    """``||d logit / d (features, sentence)||^power`` at real images with their own texts.

    The matching-aware gradient penalty (Tao et al. 2022, arXiv 2008.05865, equation 3), which GALIP
    takes on CLIP's features instead of pixels.

    One form for every precision: gradients are taken of the scaled logits, so that half-precision
    ones do not vanish, and divided again in float32, where norm and power are computed too.

    Args:
        matched_logits: (N,), computed from ``inputs``, each from its own rows.
        inputs: tensors (N, ...) requiring gradients; float32.
        power: 6 in the paper, at least 2.
        gradient_scale: the loss scale under fp16, else 1.

    Returns:
        (N,) float32, differentiable; the loss is ``ma_gp_weight`` (2 in the paper) times its mean.
        NaN or infinite where half precision overflowed.
    """
    total = matched_logits.float().sum() * gradient_scale
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    rows = [gradient.flatten(1).float() / gradient_scale for gradient in gradients]
    # The power of the squared norm: a square root would have no slope at zero.
    squared = torch.stack([row.square().sum(1) for row in rows]).sum(0)
    return squared.pow(power / 2.0)
