"""The losses of LAFITE's two networks, put together from their terms (arXiv 2111.13792, eq. 7-8).

A term whose weight is 0 is not computed and draws no random numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.networks.discriminator import DiscriminatorOutput, LafiteDiscriminator
from clipgan.families.lafite.training.clip_view import draw_clip_views
from clipgan.losses.adversarial import compute_discriminator_loss, compute_generator_loss
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.losses.penalties import compute_r1_penalty
from clipgan.losses.reconstruction import compute_reconstruction_loss
from clipgan.training.augmenter import Augmenter
from clipgan.training.random_streams import StepRandom

REAL_LOGITS_SIGN = "real_logits_sign"
"""Name of what ADA steers by."""


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
    """What generator and discriminator are asked to lower.

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
        """Non-saturating loss, the contrastive terms of fakes with their texts and with their real
        images, and the distance to the image whose feature the pseudo text comes from.

        Args:
            fake: (N, 3, R, R), generated from ``text_features``.
            batch: the real images and features that row by row belong to the texts.
            text_features: (N, D) unit vectors.
        """
        losses = self.lafite.losses
        output, logits = self.discriminate(fake, text_features, random)
        loss = LossSum("generator_adversarial", compute_generator_loss(logits))
        if (weight := losses.discriminator_contrastive_weight) > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            loss.add("generator_contrastive", contrast, weight)
        self._add_clip_terms(loss, fake, batch, text_features, random)
        if (weight := losses.discriminator_image_contrastive_weight) > 0:
            with torch.no_grad():
                real, _ = self.discriminate(batch.images, text_features, random)
            # As in the released code, the real image is the image and the fake stands for the text.
            contrast = self._contrast(real.semantic_features, output.semantic_features)
            loss.add("generator_image_contrastive", contrast, weight)
        if (weight := losses.reconstruction_weight) > 0:
            distance = compute_reconstruction_loss(fake, batch.feature_images)
            loss.add("reconstruction", distance, weight)
        return loss

    def compute_discriminator_loss(
        self, fake: Tensor, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> LossSum:
        """Logistic loss, and L_ConD on the real images' semantic features; the mean logits are
        reported among the terms.

        Args:
            fake: (N, 3, R, R) without gradients, generated from ``text_features``.
            images: (N, 3, R, R), those the texts belong to.
        """
        _, fake_logits = self.discriminate(fake, text_features, random)
        output, real_logits = self.discriminate(images, text_features, random)
        adversarial = compute_discriminator_loss(real_logits, fake_logits)
        loss = LossSum("discriminator_adversarial", adversarial)
        if (weight := self.lafite.losses.discriminator_contrastive_weight) > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            loss.add("discriminator_contrastive", contrast, weight)
        loss.terms["real_logits"] = real_logits.mean()
        loss.terms["fake_logits"] = fake_logits.mean()
        if self.config.augmentation.kind == "ada":
            loss.terms[REAL_LOGITS_SIGN] = real_logits.sign().mean()
        return loss

    def compute_r1(
        self,
        images: Tensor,
        text_features: Tensor,
        random: StepRandom,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Mean R1 penalty at real images, without its weight; ``scale`` is divided out again."""
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
        losses = self.lafite.losses
        if losses.gather_negatives:
            features, targets = self.all_gather(features), self.all_gather(targets)
        return compute_contrastive_loss(
            features,
            targets,
            losses.temperature,
            kind=losses.contrastive,
            axis=losses.contrastive_axis,
        )
