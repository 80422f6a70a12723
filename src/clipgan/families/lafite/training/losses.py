"""The losses of LAFITE's two networks, put together from their terms (arXiv 2111.13792, eq. 7-8).

A term whose weight is 0 is not computed and draws no random numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.config import LossConfig
from clipgan.families.lafite.networks.discriminator import DiscriminatorOutput, LafiteDiscriminator
from clipgan.families.lafite.training.clip_view import draw_clip_views
from clipgan.losses.adversarial import (
    compute_discriminator_loss,
    compute_generator_loss,
    is_paired,
)
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.losses.penalties import compute_r1_penalty
from clipgan.random_draws import StepRandom
from clipgan.training.augment import Augmenter

REAL_LOGITS_SIGN = "real_logits_sign"
"""Loss term by which ADA adapts its probability: mean sign of the logits of real images."""


class LossSum:
    """A weighted sum and the unweighted terms it is made of, by name."""

    def __init__(self, name: str, value: Tensor) -> None:
        """Start with a term of weight 1."""
        self.terms = {name: value}
        self.total = value

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Add ``weight * value``."""
        self.terms[name] = value
        self.total = self.total + weight * value


class LafiteLosses:
    """Computes the losses of generator and discriminator.

    Attributes:
        encode_images: the frozen CLIP: (N, 3, H, W) in [-1, 1] -> (N, D) unit vectors,
            differentiable with respect to the images.
        clip_side_px: side of CLIP's input.
        augmenter: changes all images that the discriminator sees.
        all_gather: rows of this process -> those of all processes, differentiable.
    """

    def __init__(
        self,
        discriminator: LafiteDiscriminator,
        encode_images: Callable[[Tensor], Tensor],
        clip_side_px: int,
        config: TrainConfig,
        *,
        augmenter: Augmenter,
        all_gather: Callable[[Tensor], Tensor],
    ) -> None:
        self.discriminator = discriminator
        self.encode_images = encode_images
        self.clip_side_px = clip_side_px
        self.config, self.lafite = config, config.lafite
        self.augmenter = augmenter
        self.all_gather = all_gather

    def compute_generator_loss(
        self, fake: Tensor, batch: Batch, text_features: Tensor, random: StepRandom
    ) -> LossSum:
        """Adversarial loss, the contrastive terms of fakes with their texts and with their real
        images.

        Args:
            fake: (N, 3, R, R), generated from ``text_features``.
            batch: the real images and features that row by row belong to the texts.
            text_features: (N, D) unit vectors.
        """
        losses = self.lafite.losses
        output, logits = self.discriminate(fake, text_features, random)
        image_weight = losses.discriminator_image_contrastive_weight
        real, real_logits = None, None
        if is_paired(losses.adversarial) or image_weight > 0:
            with torch.no_grad():
                real, real_logits = self.discriminate(batch.images, text_features, random)
        adversarial = compute_generator_loss(losses.adversarial, logits, real_logits)
        loss = LossSum("generator_adversarial", adversarial)
        if (weight := losses.discriminator_contrastive_weight) > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            loss.add("generator_contrastive", contrast, weight)
        self._add_clip_terms(loss, fake, batch, text_features, random)
        if image_weight > 0 and real is not None:
            # As in the released code, the real image is the image and the fake stands for the text.
            contrast = self._contrast(real.semantic_features, output.semantic_features)
            loss.add("generator_image_contrastive", contrast, image_weight)
        return loss

    def compute_discriminator_loss(
        self,
        fake: Tensor,
        images: Tensor,
        text_features: Tensor,
        random: StepRandom,
        *,
        mismatched_texts: Tensor | None = None,
    ) -> LossSum:
        """Adversarial loss, and L_ConD on the real images' semantic features; the mean logits are
        reported among the terms.

        Args:
            fake: (N, 3, R, R) without gradients, generated from ``text_features``.
            images: (N, 3, R, R), those the texts belong to.
            mismatched_texts: (N, D), others' texts, where ``losses.mismatched_share`` is not 0.
        """
        losses = self.lafite.losses
        _, fake_logits = self.discriminate(fake, text_features, random)
        output, real_logits = self.discriminate(images, text_features, random)
        mismatched_logits = None
        if mismatched_texts is not None:
            mismatched_logits = self.discriminator.compute_logits(output, mismatched_texts)
        adversarial = compute_discriminator_loss(
            losses.adversarial,
            real_logits,
            fake_logits,
            mismatched_logits,
            losses.mismatched_share,
        )
        loss = LossSum("discriminator_adversarial", adversarial)
        if (weight := losses.discriminator_contrastive_weight) > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            loss.add("discriminator_contrastive", contrast, weight)
        loss.terms["real_logits"] = real_logits.mean()
        loss.terms["fake_logits"] = fake_logits.mean()
        if mismatched_logits is not None:
            loss.terms["mismatched_logits"] = mismatched_logits.mean()
        if self.config.augmentation.kind == "ada":
            loss.terms[REAL_LOGITS_SIGN] = real_logits.sign().mean()
        return loss

    def compute_gradient_penalty(
        self,
        images: Tensor,
        text_features: Tensor,
        random: StepRandom,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Mean squared gradient norm at images, without its weight: R1 of real and R2 of generated
        ones; ``scale`` is divided out again."""
        images = images.detach().requires_grad_()
        _, logits = self.discriminate(images, text_features, random)
        return compute_r1_penalty(logits, images, scale=scale).mean()

    def discriminate(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> tuple[DiscriminatorOutput, Tensor]:
        """D(x, h') of the augmented images: its output, and (N,) logits."""
        augmented = self.augmenter.augment(images, random.rng)
        output = self.discriminator(augmented)
        return output, self.discriminator.compute_logits(output, text_features)

    def _add_clip_terms(
        self,
        loss: LossSum,
        fake: Tensor,
        batch: Batch,
        text_features: Tensor,
        random: StepRandom,
    ) -> None:
        """L_ConG with the texts, and with the features of the real images."""
        text_weight = self.lafite.losses.clip_contrastive_weight
        image_weight = self.lafite.losses.clip_image_contrastive_weight
        if text_weight == 0 and image_weight == 0:
            return
        views = draw_clip_views(fake, self.lafite.clip_view, self.clip_side_px, random)
        features = [self.encode_images(view) for view in views]
        if text_weight > 0:
            contrast = self._contrast_views(features, text_features)
            loss.add("clip_contrastive", contrast, text_weight)
        if image_weight > 0:
            contrast = self._contrast_views(features, batch.image_features)
            loss.add("clip_image_contrastive", contrast, image_weight)

    def _contrast_views(self, views: list[Tensor], targets: Tensor) -> Tensor:
        contrasts = [self._contrast(features, targets) for features in views]
        return contrasts[0] if len(contrasts) == 1 else torch.stack(contrasts).mean()

    def _contrast(self, features: Tensor, targets: Tensor) -> Tensor:
        return contrast(features, targets, self.lafite.losses, self.all_gather)


def contrast(
    features: Tensor,
    targets: Tensor,
    config: LossConfig,
    all_gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """The contrastive term of images with what belongs to them, both (N, D), as configured."""
    if config.gather_negatives:
        features, targets = all_gather(features), all_gather(targets)
    return compute_contrastive_loss(
        features,
        targets,
        config.temperature,
        kind=config.contrastive,
        axis=config.contrastive_axis,
    )
