"""One training step of GALIP (Tao et al. 2023, arXiv 2301.12959), with or without language.

Discriminator first, then the generator on the same fakes, as in the paper's code. CLIP looks at the
fakes once for both; its pass over real images and the discriminator's view of the fakes have no
graph. The conditions are those of LAFITE (``models.pseudo_text``): with captions the features of
captions, without language pseudo text features made from images, unit norm in both cases. GALIP on
pseudo text features is our own combination: neither paper has it. Two more things are not in the
paper: the average of the generator's weights, and augmentation before CLIP's eyes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.clip.vit_taps import VitTower
from clipgan.config import GalipConfig, TrainConfig
from clipgan.data.batches import Batch
from clipgan.devices import DTYPES
from clipgan.losses.hinge import (
    compute_clip_similarity,
    compute_discriminator_hinge,
    compute_fake_hinge,
    compute_generator_hinge,
    compute_real_hinge,
    mismatch_texts,
)
from clipgan.losses.ma_gp import compute_ma_gp
from clipgan.losses.reconstruction import compute_reconstruction_loss
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import draw_normal
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.galip_networks import GalipNetworks
from clipgan.training.game_step import GameStep
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import StepLosses
from clipgan.training.updates import LossScale


class GalipStep(GameStep):
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
            config: ``galip`` in it, and the keys that LAFITE shares.
            means: what CLIP's image embeddings are centred by where ``pseudo_text.kind`` is
                ``centred_gaussian``; stored features come centred.
            mapper: makes the pseudo text where ``pseudo_text.kind`` is ``mapper``.
            processes: train these networks together, each with its rows of the batch.
        """
        galip = config.galip
        super().__init__(
            networks,
            config,
            rates=galip.optimizer,
            reconstruction_weight=galip.losses.reconstruction_weight,
            build_loss_scale=lambda: _build_loss_scale(config.precision, galip),
            lazy_intervals=(None, None),
            mapper=mapper,
            processes=processes,
        )
        self.tower, self.galip, self.means = tower, galip, means
        self.device = next(self.generator.parameters()).device

    def _play(
        self, batch: Batch, text_features: Tensor, images_seen: int, random: StepRandom
    ) -> StepLosses:
        """The paper's step: the discriminator, then the generator, on the same fakes."""
        del images_seen  # nothing is lazy in GALIP
        fake = self._draw_fakes(text_features, random)
        fake_taps, fake_embeddings = self._encode_fakes(fake, random)
        with torch.no_grad():
            real_taps = self._encode_taps(batch.images, random)
        values = self._update_discriminator(real_taps, fake_taps.detach(), text_features)
        distance = self._measure_distance(fake, batch)
        return values | self._update_generator(fake_taps, fake_embeddings, text_features, distance)

    def _measure_distance(self, fake: Tensor, batch: Batch) -> Tensor | None:
        """Of fakes to the images of their conditions; None where nothing weighs it."""
        if not self.galip.losses.reconstruction_weight:
            return None
        return compute_reconstruction_loss(fake.float(), batch.feature_images)

    def _draw_fakes(self, text_features: Tensor, random: StepRandom) -> Tensor:
        shape = (len(text_features), self.generator.latent_dim)
        latents = draw_normal(shape, random.device, device=random.device.device)
        with self._autocast():
            fake: Tensor = self.generator(latents, text_features)
        return fake

    def _encode_taps(self, images: Tensor, random: StepRandom) -> Tensor:
        """Tokens of the tapped blocks, after augmentation; later blocks are not run."""
        return self.tower.encode_taps(
            self._prepare(self.augmenter.augment(images, random.device)),
            self.discriminator.tapped_blocks,
        )

    def _encode_fakes(self, fake: Tensor, random: StepRandom) -> tuple[Tensor, Tensor | None]:
        """Tokens for the discriminator and, where it is weighted, the embedding of whole fakes."""
        if not self.galip.losses.clip_similarity_weight:
            return self._encode_taps(fake, random), None
        blocks = self.discriminator.tapped_blocks
        whole = self.tower.encode(self._prepare(fake), blocks)
        if self.config.augmentation.kind != "none":
            return self._encode_taps(fake, random), whole.embeddings
        return whole.taps, whole.embeddings

    def _update_discriminator(
        self, real_taps: Tensor, fake_taps: Tensor, text_features: Tensor
    ) -> StepLosses:
        """Hinge on matched, mismatched and fake pairs, and the penalty at the matched ones."""
        losses, network = self.galip.losses, self.discriminator
        network.requires_grad_(True)
        real_taps = real_taps.detach().requires_grad_()
        sentences = network.scale_texts(text_features).requires_grad_()
        with self._autocast():
            features = network(real_taps)
            matched = network.compute_logits(features, sentences)
            mismatched = network.compute_logits(features, self._mismatch(sentences))
            fake = network.compute_logits(network(fake_taps), sentences.detach())
        terms = {
            "matched_hinge": compute_real_hinge(matched),
            "mismatched_hinge": compute_fake_hinge(mismatched),
            "fake_hinge": compute_fake_hinge(fake),
        }
        total = compute_discriminator_hinge(
            terms["matched_hinge"],
            terms["mismatched_hinge"],
            terms["fake_hinge"],
            losses.mismatched_share,
        )
        if losses.ma_gp_weight > 0:
            terms["ma_gp"] = (
                losses.ma_gp_weight
                * compute_ma_gp(
                    matched,
                    (real_taps, sentences),
                    power=losses.ma_gp_power,
                    gradient_scale=self.discriminator_updates.scale,
                ).mean()
            )
            total = total + terms["ma_gp"]
        logits = {"matched": matched, "mismatched": mismatched, "fake": fake}
        terms |= {f"{name}_logits": values.mean() for name, values in logits.items()}
        return self.discriminator_updates.apply(total, terms, "discriminator")

    def _mismatch(self, sentences: Tensor) -> Tensor:
        """Each row's sentence from the next row of the whole batch, whoever holds it."""
        everybodys = self.processes.gather_rows(sentences.detach())
        return self.processes.keep_own_rows(mismatch_texts(everybodys))

    def _update_generator(
        self,
        fake_taps: Tensor,
        fake_embeddings: Tensor | None,
        text_features: Tensor,
        distance: Tensor | None = None,
    ) -> StepLosses:
        """Adversarial term, CLIP's opinion of how well fakes fit their texts, and ``distance``."""
        network = self.discriminator.requires_grad_(False)
        sentences = network.scale_texts(text_features)
        with self._autocast():
            logits = network.compute_logits(network(fake_taps), sentences)
        terms = {"generator_adversarial": compute_generator_hinge(logits)}
        total = terms["generator_adversarial"]
        if fake_embeddings is not None:
            if self.means is not None:
                fake_embeddings = self.means.centre_images(F.normalize(fake_embeddings, dim=1))
            terms["clip_similarity"] = compute_clip_similarity(fake_embeddings, text_features)
            weight = self.galip.losses.clip_similarity_weight
            total = total - weight * terms["clip_similarity"]
        if distance is not None:
            terms["reconstruction"] = distance
            total = total + self.galip.losses.reconstruction_weight * distance
        return self.generator_updates.apply(total, terms, "generator")

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
