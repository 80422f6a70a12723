"""The hinge losses of GALIP (arXiv 2301.12959, section 3.4; Lim and Ye 2017, arXiv 1705.02894)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.errors import ConfigError


def compute_real_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 - logit)``: real images with their own texts; (N,) -> scalar."""
    return F.relu(1.0 - logits).mean()


def compute_fake_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 + logit)``: fakes, and real images with others' texts; (N,) -> scalar."""
    return F.relu(1.0 + logits).mean()


def compute_discriminator_hinge(
    matched: Tensor, mismatched: Tensor, fake: Tensor, mismatched_share: float
) -> Tensor:
    """Weighted sum of the three hinge terms, each a scalar: ``matched`` has weight 1, the other two
    share 1; in the paper each of them has a half."""
    return matched + mismatched_share * mismatched + (1.0 - mismatched_share) * fake


def compute_generator_hinge(fake_logits: Tensor) -> Tensor:
    """``-mean(logit)`` over generated images; (N,) -> scalar."""
    return -fake_logits.mean()


def compute_clip_similarity(embeddings: Tensor, text_features: Tensor) -> Tensor:
    """Mean cosine of image embeddings and their texts; (N, D) of any length, twice -> scalar."""
    return F.cosine_similarity(embeddings.float(), text_features.float(), dim=1).mean()


def mismatch_texts(texts: Tensor) -> Tensor:
    """Give row i the text of row i + 1, and the last one the first's; detached.

    Raises:
        ConfigError: a batch of one has no other text.
    """
    if len(texts) < 2:
        raise ConfigError(
            f"train.batch_size = {len(texts)}: GALIP's mismatched term needs another image's "
            "text; use at least 2"
        )
    return torch.roll(texts, -1, dims=0).detach()
