"""One training step of LAFITE (Zhou et al. 2022, arXiv 2111.13792) on a StyleGAN2 backbone.

:meth:`LafiteStep.step` is the algorithm from top to bottom; :mod:`.losses` has the terms of both
losses. A step has up to four phases, each with its own update, in StyleGAN2's order (Karras et al.
2020). Lazy phases are weighted by their interval, and Adam's rate and betas are corrected for the
extra updates (ibid., appendix B). One draw of pseudo text features serves all phases of a step;
every phase draws latents of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.config import LafiteConfig
from clipgan.families.lafite.training.losses import REAL_LOGITS_SIGN, LafiteLosses
from clipgan.families.lafite.training.start import LafiteNetworks
from clipgan.losses.penalties import PathLengthPenalty
from clipgan.losses.reconstruction import compute_reconstruction_loss
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import draw_normal
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import StateTensors, StepLosses
from clipgan.training.updates import LossScale, NetworkUpdates


class LafiteStep(AdversarialStep):
    """Networks, optimizers and running means of a LAFITE training."""

    advice = "lower train.lafite.optimizer's learning rates or change train.lafite.losses.r1_gamma"

    def __init__(
        self,
        networks: LafiteNetworks,
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
        lafite: LafiteConfig = config.lafite
        weights, rates = lafite.losses, lafite.optimizer
        self.lafite, fp16 = lafite, config.precision == "fp16"
        self.generator_updates = NetworkUpdates(
            self.generator,
            rates.generator_learning_rate,
            rates,
            loss_scale=LossScale() if fp16 else None,
            lazy_interval=weights.path_length_interval if weights.path_length_weight > 0 else None,
            processes=processes,
        )
        self.discriminator_updates = NetworkUpdates(
            self.discriminator,
            rates.discriminator_learning_rate,
            rates,
            loss_scale=LossScale() if fp16 else None,
            lazy_interval=weights.r1_interval if weights.r1_gamma > 0 else None,
            processes=processes,
        )
        self.losses = LafiteLosses(
            networks.discriminator,
            encode_images,
            clip_side_px,
            config,
            augmenter=self.augmenter,
            all_gather=processes.all_gather,
        )
        self._averages_every_phase = lafite.latent_average == "per_phase"
        self.path_length = PathLengthPenalty(weights.path_length_decay, processes.average).to(
            self.device
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """The paper's step; see the protocol ``TrainingStep``."""
        weights, index = self.lafite.losses, images_seen // self.config.batch_size
        generator, discriminator = self.generator_updates, self.discriminator_updates

        # Conditions h': pseudo text features of the real images (equation 2).
        texts = self.draw_conditions(batch, random)

        # Fakes x' = G(z, h'), with a graph to G.
        self._train_only(self.generator)
        fake, _ = self._draw_fakes(texts, random, update_average=True)

        if images_seen < self.config.warm_up_images:
            # Not in the paper: reconstruction alone, before the two networks meet (ADR 0008).
            distance = compute_reconstruction_loss(fake.float(), batch.feature_images)
            total = weights.reconstruction_weight * distance
            values = generator.apply(total, {"reconstruction": distance}, "generator")
            self.update_average(images_seen)
            return values

        # Loss of G (the paper's L'_G): adversarial term, L_ConD and L_ConG of the fakes with their
        # texts. Backward pass and Adam, as at the end of each phase.
        loss = self.losses.compute_generator_loss(fake, batch, texts, random)
        values = generator.apply(loss.total, loss.terms, "generator")

        # Path length regularisation of G on a part of the batch (Karras et al. 2020, equation 4).
        if weights.path_length_weight > 0 and index % weights.path_length_interval == 0:
            few = texts[: max(1, int(len(texts) * weights.path_length_batch_fraction))]
            fake, styles = self._draw_fakes(few, random, update_average=self._averages_every_phase)
            mean, before = self.path_length.mean_length, self.path_length.mean_length.clone()
            penalty = self.path_length(fake, styles, rng=random.rng, scale=generator.scale).mean()
            total = weights.path_length_weight * weights.path_length_interval * penalty
            values |= generator.apply(total, {"path_length_penalty": penalty}, "path_length")
            # Where the lengths overflowed the running mean must not keep them.
            finite = torch.isfinite(values.get_on_device("path_length_penalty"))
            mean.copy_(torch.where(finite, mean, before))

        # Loss of D (the paper's L'_D): adversarial terms of new fakes and real images, and L_ConD
        # of the real images with the same texts.
        self._train_only(self.discriminator)
        with torch.no_grad():
            fake, _ = self._draw_fakes(texts, random, update_average=self._averages_every_phase)
        loss = self.losses.compute_discriminator_loss(fake, batch.images, texts, random)
        values |= discriminator.apply(loss.total, loss.terms, "discriminator")
        if REAL_LOGITS_SIGN in loss.terms:
            values |= self.augmenter.observe(values.get_on_device(REAL_LOGITS_SIGN))

        # R1 of D at the real images (Mescheder et al. 2018).
        if weights.r1_gamma > 0 and index % weights.r1_interval == 0:
            penalty = self.losses.compute_r1(batch.images, texts, random, scale=discriminator.scale)
            total = weights.r1_gamma / 2 * weights.r1_interval * penalty
            values |= discriminator.apply(total, {"r1_penalty": penalty}, "r1")

        # Average of G's weights (Karras et al. 2018, section 4.2).
        self.update_average(images_seen)
        return values

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """See :class:`AdversarialStep`."""
        output = self.discriminator(images)
        logits: Tensor = self.discriminator.compute_logits(output, text_features)
        return logits

    def _draw_fakes(
        self, texts: Tensor, random: StepRandom, *, update_average: bool
    ) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) of new latents, and their styles."""
        styles = self._draw_styles(len(texts), random, update_average=update_average)
        fake: Tensor = self.generator.synthesis(styles, texts, noise="random", rng=random.rng)
        return fake, styles

    def _draw_styles(self, count: int, random: StepRandom, *, update_average: bool) -> Tensor:
        """(count, num_layers, style_dim); with style mixing, one cutoff for the batch."""
        generator = self.generator
        styles: Tensor = generator.mapping(self._draw_latents(count, random))
        if update_average:
            generator.update_latent_average(self.processes.all_gather(styles.detach()))
        if random.draw_fraction() < self.lafite.losses.style_mixing_probability:
            cutoff = random.draw_integer(1, generator.num_layers - 1)
            other = generator.mapping(self._draw_latents(count, random))
            styles = torch.cat([styles[:, :cutoff], other[:, cutoff:]], dim=1)
        return styles

    def _draw_latents(self, count: int, random: StepRandom) -> Tensor:
        shape = (count, self.lafite.generator.latent_dim)
        return draw_normal(shape, random.rng, device=random.rng.device)

    def _train_only(self, network: nn.Module) -> None:
        self.generator.requires_grad_(network is self.generator)
        self.discriminator.requires_grad_(network is self.discriminator)
        for block in self.discriminator.list_blocks()[: self.lafite.freeze_discriminator_blocks]:
            block.requires_grad_(False)

    def capture_state(self) -> StateTensors:
        """All of :class:`AdversarialStep`, and the path-length mean."""
        return {**super().capture_state(), "path_length": dict(self.path_length.state_dict())}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        super().restore_state(tensors)
        self.path_length.load_state_dict(tensors["path_length"])
