"""The losses of LAFITE's networks where heads on CLIP's maps are the discriminator.

Adversarial losses are means over all places: a depth weighs as much as it has places, or the
deepest maps, whose few places see all of an image, would outweigh every detail. A term whose weight
is 0 is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.config import LafiteConfig
from clipgan.families.lafite.networks.projected import ProjectedDiscriminator
from clipgan.families.lafite.training.losses import LossSum, contrast
from clipgan.losses.adversarial import (
    compute_discriminator_loss,
    compute_generator_loss,
    is_paired,
)
from clipgan.training.clip_maps import ClipView


class ProjectedLosses:
    """Computes the losses of the generator and of the heads.

    ``all_gather``: rows of this process -> those of all processes, differentiable.
    """

    def __init__(
        self,
        discriminator: ProjectedDiscriminator,
        config: TrainConfig,
        *,
        all_gather: Callable[[Tensor], Tensor],
    ) -> None:
        lafite: LafiteConfig = config.lafite
        self.discriminator, self.weights = discriminator, lafite.losses
        self.all_gather = all_gather

    def compute_discriminator_loss(
        self,
        fake_maps: Sequence[Tensor],
        real_maps: Sequence[Tensor],
        text_features: Tensor,
        mismatched_texts: Tensor | None,
    ) -> LossSum:
        """Adversarial loss; the mean logits are reported among the terms.

        Args:
            fake_maps, real_maps: (N, C_k, H_k, W_k) of each depth, without gradients; row i of both
                belongs to row i of ``text_features`` (N, D).
            mismatched_texts: (N, D), others' texts, where ``losses.mismatched_share`` is not 0.
        """
        both = [torch.cat(maps) for maps in zip(fake_maps, real_maps, strict=True)]
        # One pass of the heads for both.
        features = self.discriminator(both)
        count = len(text_features)
        fake = self._compute_logits([each[:count] for each in features], text_features)
        real_features = [each[count:] for each in features]
        real = self._compute_logits(real_features, text_features)
        logits = {"real_logits": real, "fake_logits": fake}
        mismatched = None
        if mismatched_texts is not None:
            mismatched = self._compute_logits(real_features, mismatched_texts)
            logits["mismatched_logits"] = mismatched
        kind, share = self.weights.adversarial, self.weights.mismatched_share
        adversarial = compute_discriminator_loss(kind, real, fake, mismatched, share)
        loss = LossSum("discriminator_adversarial", adversarial)
        loss.terms |= {name: values.mean() for name, values in logits.items()}
        return loss

    def compute_generator_loss(
        self,
        view: ClipView,
        real_maps: Sequence[Tensor],
        batch: Batch,
        text_features: Tensor,
    ) -> LossSum:
        """Adversarial loss and CLIP's contrastive terms.

        Args:
            view: what CLIP sees of the fakes, with a graph to them.
            real_maps: as above; looked at by the paired loss alone.
            batch: the real images and features that row by row belong to the texts.
            text_features: (N, D) unit vectors.
        """
        weights = self.weights
        logits = self._compute_logits(self.discriminator(view.maps), text_features)
        real_logits = None
        if is_paired(weights.adversarial):
            with torch.no_grad():
                real_logits = self._compute_logits(self.discriminator(real_maps), text_features)
        adversarial = compute_generator_loss(weights.adversarial, logits, real_logits)
        loss = LossSum("generator_adversarial", adversarial)
        for name, targets, weight in (
            ("clip_contrastive", text_features, weights.clip_contrastive_weight),
            (
                "clip_image_contrastive",
                batch.image_features,
                weights.clip_image_contrastive_weight,
            ),
        ):
            if weight > 0:
                term = contrast(view.features, targets, weights, self.all_gather)
                loss.add(name, term, weight)
        return loss

    def _compute_logits(self, features: Sequence[Tensor], text_features: Tensor) -> Tensor:
        return self.discriminator.compute_logits(features, text_features)
