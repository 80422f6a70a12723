"""The adversarial losses by name: logistic, hinge and relativistic.

Logits are (N,) or (N, places), row i of one condition; every loss is a scalar.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import AdversarialKind
from clipgan.errors import ConfigError


def is_paired(kind: AdversarialKind) -> bool:
    """Whether the generator's loss compares fakes with real images, too."""
    return kind == "relativistic"


def compute_generator_loss(
    kind: AdversarialKind, fake_logits: Tensor, real_logits: Tensor | None = None
) -> Tensor:
    """The loss of the generator.

    - ``logistic``: mean of ``softplus(-fake)``, non-saturating (Goodfellow et al., arXiv
      1406.2661);
    - ``hinge``: ``-mean(fake)`` (Lim and Ye, arXiv 1705.02894);
    - ``relativistic``: mean of ``softplus(-(fake - real))``.

    Args:
        real_logits: those of the real image with the text of the same row; needed where
            :func:`is_paired`, else not looked at.
    """
    match kind:
        case "logistic":
            return F.softplus(-fake_logits).mean()
        case "hinge":
            return -fake_logits.mean()
        case "relativistic":
            assert real_logits is not None
            return F.softplus(real_logits - fake_logits).mean()


def compute_discriminator_loss(
    kind: AdversarialKind,
    real_logits: Tensor,
    fake_logits: Tensor,
    mismatched_logits: Tensor | None = None,
    mismatched_share: float = 0.0,
) -> Tensor:
    """The loss of the discriminator.

    - ``logistic``: mean of ``softplus(-real)`` plus mean of ``softplus(fake)``;
    - ``hinge``: no gradient where a logit is beyond 1, see :func:`compute_real_hinge`;
    - ``relativistic``: mean of ``softplus(-(real - fake))`` (Jolicoeur-Martineau, arXiv 1807.00734;
      R3GAN, arXiv 2501.05441). Only differences of logits count, and no local minimum lacks a part
      of the data. It converges with R1 and R2, not with one of them (R3GAN, section 2).

    Args:
        mismatched_logits: of the real images with others' texts: negatives as the fakes are (Reed
            et al., arXiv 1605.05396).
        mismatched_share: their weight; that of the fakes is the rest of 1.
    """
    loss = _discriminate(kind, real_logits, fake_logits)
    if mismatched_logits is None:
        return loss
    mismatched = _discriminate(kind, real_logits, mismatched_logits)
    return (1.0 - mismatched_share) * loss + mismatched_share * mismatched


def _discriminate(kind: AdversarialKind, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    match kind:
        case "logistic":
            return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        case "hinge":
            return compute_real_hinge(real_logits) + compute_fake_hinge(fake_logits)
        case "relativistic":
            return F.softplus(fake_logits - real_logits).mean()


def compute_real_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 - logit)``: real images with their own texts."""
    return F.relu(1.0 - logits).mean()


def compute_fake_hinge(logits: Tensor) -> Tensor:
    """Mean of ``max(0, 1 + logit)``: fakes, and real images with others' texts."""
    return F.relu(1.0 + logits).mean()


def mismatch_texts(texts: Tensor) -> Tensor:
    """Give row i of (N, D) the text of row i + 1, and the last one the first's; detached.

    Raises:
        ConfigError: a batch of one has no other text.
    """
    if len(texts) < 2:
        raise ConfigError(
            f"train.batch_size = {len(texts)}: a mismatched text is another image's; use at least 2"
        )
    return torch.roll(texts, -1, dims=0).detach()
