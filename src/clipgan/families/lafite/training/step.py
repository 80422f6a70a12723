"""One training step of LAFITE (Zhou et al. 2022, arXiv 2111.13792) on a StyleGAN2 backbone.

:meth:`LafiteStep.step` is the algorithm from top to bottom; :mod:`.losses` has the terms of both
losses. A step has up to four phases, each with its own update, in StyleGAN2's order (Karras et al.
2020). Lazy phases are weighted by their interval, and Adam's rate and betas are corrected for the
extra updates (ibid., appendix B). One draw of pseudo text features serves all phases of a step;
every phase draws latents of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.training.generator_phases import GeneratorPhases
from clipgan.families.lafite.training.losses import REAL_LOGITS_SIGN, LafiteLosses
from clipgan.losses.adversarial import is_paired
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import StepRandom
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.fine_tuning import Networks
from clipgan.training.state import StepLosses


class LafiteStep(GeneratorPhases):
    """LAFITE against StyleGAN2's discriminator."""

    advice = "lower train.lafite.optimizer's learning rates or change train.lafite.losses.r1_gamma"

    def __init__(
        self,
        networks: Networks[LafiteGenerator, LafiteDiscriminator],
        encode_images: Callable[[Tensor], Tensor],
        config: TrainConfig,
        *,
        clip_side_px: int,
        mapper: NoiseMapper | None = None,
        processes: Processes = SINGLE,
    ) -> None:
        """``encode_images`` is the frozen CLIP: (N, 3, H, W) in [-1, 1] -> (N, D) unit vectors,
        differentiable with respect to the images; ``clip_side_px`` is the side of its input;
        ``mapper`` makes the pseudo text where ``pseudo_text.kind`` is ``mapper``; ``processes``
        train these networks together, each with its rows of the batch."""
        super().__init__(networks, config, mapper=mapper, processes=processes)
        self.losses = LafiteLosses(
            networks.discriminator,
            encode_images,
            clip_side_px,
            config,
            augmenter=self.augmenter,
            all_gather=processes.all_gather,
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """The paper's step; see the protocol ``TrainingStep``."""
        weights, index = self.lafite.losses, images_seen // self.config.batch_size
        generator, discriminator = self.generator_updates, self.discriminator_updates

        # Conditions h': pseudo text features of the real images (equation 2).
        texts = self.draw_conditions(batch, random)

        self._train_only(self.generator)
        if images_seen < self.config.warm_up_images:
            return self.warm_up(batch, texts, images_seen, random)

        # Fakes x' = G(z, h'), with a graph to G.
        codes = self.encode_latents(batch, images_seen)
        fake = self.draw_images(texts, random, codes)

        # Loss of G (the paper's L'_G): adversarial term, L_ConD and L_ConG of the fakes with their
        # texts. Backward pass and Adam, as at the end of each phase.
        loss = self.losses.compute_generator_loss(fake, batch, texts, random)
        # Not in the paper: the distance to the image of the condition.
        self.add_reconstruction(loss, fake, batch, codes, images_seen)
        values = generator.apply(loss.total, loss.terms, "generator")

        # Path length regularisation of G on a part of the batch (Karras et al. 2020, equation 4).
        if weights.path_length_weight > 0 and index % weights.path_length_interval == 0:
            values |= self.regularize_path_length(texts, random)

        # Loss of D (the paper's L'_D): adversarial terms of new fakes and real images, and L_ConD
        # of the real images with the same texts.
        self._train_only(self.discriminator)
        with torch.no_grad():
            fake, _ = self.draw_fakes(texts, random, update_average=self.averages_every_phase)
        others = self.mismatch(texts) if weights.mismatched_share > 0 else None
        loss = self.losses.compute_discriminator_loss(
            fake, batch.images, texts, random, mismatched_texts=others
        )
        values |= discriminator.apply(loss.total, loss.terms, "discriminator")
        if REAL_LOGITS_SIGN in loss.terms:
            values |= self.augmenter.observe(values.get_on_device(REAL_LOGITS_SIGN))

        # R1 of D at the real images (Mescheder et al. 2018), and R2 at the fakes where they meet in
        # pairs (R3GAN, section 2).
        if weights.r1_gamma > 0 and index % weights.r1_interval == 0:
            images = {"r1_penalty": batch.images}
            if is_paired(weights.adversarial):
                images["r2_penalty"] = fake
            penalties = {
                name: self.losses.compute_gradient_penalty(
                    shown, texts, random, scale=discriminator.scale
                )
                for name, shown in images.items()
            }
            total = (
                weights.r1_gamma
                / 2
                * weights.r1_interval
                * torch.stack([*penalties.values()]).sum()
            )
            values |= discriminator.apply(total, penalties, "r1")

        # Average of G's weights (Karras et al. 2018, section 4.2).
        self.update_average(images_seen)
        return values

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """See :class:`AdversarialStep`."""
        output = self.discriminator(images)
        logits: Tensor = self.discriminator.compute_logits(output, text_features)
        return logits

    def _train_only(self, network: nn.Module) -> None:
        self.generator.requires_grad_(network is self.generator)
        self.discriminator.requires_grad_(network is self.discriminator)
        for block in self.discriminator.list_blocks()[: self.lafite.freeze_discriminator_blocks]:
            block.requires_grad_(False)
