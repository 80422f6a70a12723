"""What GALIP makes of its hinge terms (arXiv 2301.12959, section 3.4)."""

from __future__ import annotations

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
