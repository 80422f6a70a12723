"""One training step of GALIP (Tao et al. 2023, arXiv 2301.12959), with or without language.

``GalipStep.step`` is the algorithm from top to bottom: the discriminator first, then the generator
on the same fakes, as in the paper's code. CLIP encodes the fakes once for both. No gradient passes
through its encoding of real images, or from the discriminator's loss to the fakes. The conditions
are those of LAFITE (``models.pseudo_text``): with captions the features of captions, without
language pseudo text features made from images, unit norm in both cases. GALIP on pseudo text
features is our own combination: neither paper has it. Two more things are not in the paper: the
average of the generator's weights, and augmentation of the images that CLIP sees.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.devices import DTYPES
from clipgan.families.galip.config import GalipConfig
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.families.galip.training.losses import (
    compute_clip_similarity,
    compute_discriminator_hinge,
    compute_ma_gp,
)
from clipgan.families.galip.training.start import GalipNetworks
from clipgan.losses.adversarial import (
    compute_fake_hinge,
    compute_generator_loss,
    compute_real_hinge,
)
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.state import StepLosses
from clipgan.training.updates import LossScale, NetworkUpdates


class GalipStep(AdversarialStep):
    """Networks and optimizers of a GALIP training."""

    advice = (
        "lower train.galip.optimizer's learning rates or change train.galip.losses.ma_gp_weight"
    )

    def __init__(
        self,
        networks: GalipNetworks,
        tower: VitTower,
        config: TrainConfig,
        *,
        means: ModalityMeans | None = None,
        mapper: NoiseMapper | None = None,
        processes: Processes = SINGLE,
    ) -> None:
        """
        Args:
            networks: on their device.
            tower: the frozen CLIP, on the same.
            config: ``galip`` in it, and the keys that all families share.
            means: what CLIP's image embeddings are centred by where ``pseudo_text.kind`` is
                ``centred_gaussian``; stored features come centred.
            mapper: makes the pseudo text where ``pseudo_text.kind`` is ``mapper``.
            processes: train these networks together, each with its rows of the batch.
        """
        super().__init__(networks, config, mapper=mapper, processes=processes)
        galip: GalipConfig = config.galip
        self.tower, self.galip, self.means = tower, galip, means
        rates = galip.optimizer
        self.generator_updates, self.discriminator_updates = (
            NetworkUpdates(
                network,
                rate,
                rates,
                loss_scale=_build_loss_scale(config.precision, galip),
                lazy_interval=None,
                processes=processes,
            )
            for network, rate in (
                (self.generator, rates.generator_learning_rate),
                (self.discriminator, rates.discriminator_learning_rate),
            )
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """The paper's step; see the protocol ``TrainingStep``."""
        weights, network = self.galip.losses, self.discriminator
        generator, discriminator = self.generator_updates, self.discriminator_updates

        # Conditions: text features, pseudo ones without language.
        texts = self.draw_conditions(batch, random)

        if images_seen < self.config.warm_up_images:
            return self.warm_up(batch, texts, images_seen, random)

        # Fakes G(z, e), with a graph to G.
        codes = self.encode_latents(batch, images_seen)
        fake = self.draw_images(texts, random, codes)

        # What CLIP sees: tokens for D, embeddings of the fakes for the similarity.
        fake_intermediates, embeddings = self._encode_fakes(fake, random)
        with torch.no_grad():
            real_intermediates = self._encode_intermediates(batch.images, random)

        # Loss of D (section 3.4): hinge on matched, mismatched and fake pairs.
        network.requires_grad_(True)
        real_intermediates = real_intermediates.detach().requires_grad_()
        sentences = network.scale_texts(texts).requires_grad_()
        with self._autocast():
            features = network(real_intermediates)
            matched = network.compute_logits(features, sentences)
            mismatched = network.compute_logits(features, self.mismatch(sentences))
            unreal = network.compute_logits(
                network(fake_intermediates.detach()), sentences.detach()
            )
        terms = {
            "matched_hinge": compute_real_hinge(matched),
            "mismatched_hinge": compute_fake_hinge(mismatched),
            "fake_hinge": compute_fake_hinge(unreal),
        }
        total = terms["discriminator_adversarial"] = compute_discriminator_hinge(
            terms["matched_hinge"],
            terms["mismatched_hinge"],
            terms["fake_hinge"],
            weights.mismatched_share,
        )
        # The matching-aware gradient penalty, at the matched pairs in CLIP's feature space.
        if weights.ma_gp_weight > 0:
            penalty = compute_ma_gp(
                matched,
                (real_intermediates, sentences),
                power=weights.ma_gp_power,
                gradient_scale=discriminator.scale,
            )
            terms["ma_gp"] = weights.ma_gp_weight * penalty.mean()
            total = total + terms["ma_gp"]
        logits = {"matched": matched, "mismatched": mismatched, "fake": unreal}
        terms |= {f"{name}_logits": scores.mean() for name, scores in logits.items()}
        # Backward pass and Adam.
        values = discriminator.apply(total, terms, "discriminator")

        # Loss of G on the same fakes (section 3.4): adversarial term, and their similarity to the
        # texts in CLIP's eyes.
        network.requires_grad_(False)
        sentences = network.scale_texts(texts)
        with self._autocast():
            unreal = network.compute_logits(network(fake_intermediates), sentences)
        total = compute_generator_loss("hinge", unreal)
        terms = {"generator_adversarial": total}
        if embeddings is not None:
            if self.means is not None:
                embeddings = self.means.centre_images(F.normalize(embeddings, dim=1))
            terms["clip_similarity"] = compute_clip_similarity(embeddings, texts)
            total = total - weights.clip_similarity_weight * terms["clip_similarity"]
        # Not in the paper: the distance to the image of the condition.
        if weight := self.compute_reconstruction_weight(images_seen):
            distance = self.compute_reconstruction(fake, batch, codes)
            terms["reconstruction"] = distance
            total = total + weight * distance
        values |= generator.apply(total, terms, "generator")

        # Average of G's weights, not in the paper.
        self.update_average(images_seen)
        return values

    def draw_images(self, texts: Tensor, random: StepRandom, codes: Tensor | None = None) -> Tensor:
        """See :class:`AdversarialStep`."""
        latents = self.draw_latents(len(texts), random, codes)
        with self._autocast():
            fake: Tensor = self.generator(latents, texts)
        return fake

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """See :class:`AdversarialStep`."""
        network = self.discriminator
        with self._autocast():
            tokens = self.tower.encode_intermediates(self._prepare(images), network.tapped_blocks)
            logits: Tensor = network.compute_logits(
                network(tokens), network.scale_texts(text_features)
            )
        return logits

    def _encode_intermediates(self, images: Tensor, random: StepRandom) -> Tensor:
        """Tokens of the tapped blocks, after augmentation; later blocks are not run."""
        return self.tower.encode_intermediates(
            self._prepare(self.augmenter.augment(images, random.rng)),
            self.discriminator.tapped_blocks,
        )

    def _encode_fakes(self, fake: Tensor, random: StepRandom) -> tuple[Tensor, Tensor | None]:
        """Tokens for the discriminator and, where it is weighted, the embedding of whole fakes."""
        if not self.galip.losses.clip_similarity_weight:
            return self._encode_intermediates(fake, random), None
        blocks = self.discriminator.tapped_blocks
        whole = self.tower.encode(self._prepare(fake), blocks)
        if self.config.augmentation.kind != "none":
            return self._encode_intermediates(fake, random), whole.embeddings
        return whole.intermediates, whole.embeddings

    def _prepare(self, images: Tensor) -> Tensor:
        return self.tower.prepare(images, self.galip.clip_input)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def _build_loss_scale(precision: str, galip: GalipConfig) -> LossScale | None:
    settings = galip.loss_scale
    if precision != "fp16":
        return None
    return LossScale(settings.initial_scale, settings.growth_interval_steps)
