"""The adversarial losses by name: logistic, hinge and relativistic, a file each."""

from __future__ import annotations

from torch import Tensor

from clipgan.config import AdversarialKind
from clipgan.losses import hinge, logistic, relativistic


def is_paired(kind: AdversarialKind) -> bool:
    """Whether the generator's loss, too, looks at real images."""
    return kind == "relativistic"


def compute_generator_loss(
    kind: AdversarialKind, fake_logits: Tensor, real_logits: Tensor | None = None
) -> Tensor:
    """What the generator lowers; (N, ...) -> scalar.

    Args:
        real_logits: those of the real image with the text of the same row; needed where
            :func:`is_paired`, else not looked at.
    """
    match kind:
        case "logistic":
            return logistic.compute_generator_loss(fake_logits)
        case "hinge":
            return hinge.compute_generator_loss(fake_logits)
        case "relativistic":
            assert real_logits is not None
            return relativistic.compute_generator_loss(fake_logits, real_logits)


def compute_discriminator_loss(
    kind: AdversarialKind,
    real_logits: Tensor,
    fake_logits: Tensor,
    mismatched_logits: Tensor | None = None,
    mismatched_share: float = 0.0,
) -> Tensor:
    """What the discriminator lowers; (N, ...), row i of all has one condition -> scalar.

    Args:
        mismatched_logits: of the real images with others' texts: negatives as the fakes are (Reed
            et al., arXiv 1605.05396).
        mismatched_share: their weight; that of the fakes is the rest of 1.
    """
    form = {"logistic": logistic, "hinge": hinge, "relativistic": relativistic}[kind]
    loss: Tensor = form.compute_discriminator_loss(real_logits, fake_logits)
    if mismatched_logits is None:
        return loss
    mismatched: Tensor = form.compute_discriminator_loss(real_logits, mismatched_logits)
    return (1.0 - mismatched_share) * loss + mismatched_share * mismatched
