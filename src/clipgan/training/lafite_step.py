"""One training step of LAFITE (Zhou et al. 2022, arXiv 2111.13792) on a StyleGAN2 backbone.

A step has up to four phases, each with its own update, in StyleGAN2's order (Karras et al. 2020):
generator, path length (every ``path_length_interval`` steps), discriminator, R1 (every
``r1_interval`` steps). Lazy phases are weighted by their interval, and Adam's rate and betas are
corrected for the extra updates (ibid., appendix B). One draw of pseudo text features serves all
phases of a step; every phase draws latents of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.losses.penalties import PathLengthPenalty
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import draw_normal
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.fine_tuning import LafiteNetworks
from clipgan.training.game_step import GameStep
from clipgan.training.lafite_losses import REAL_LOGITS_SIGN, LafiteLosses
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import StateTensors, StepLosses
from clipgan.training.updates import (
    LossScale,
)


class LafiteStep(GameStep):
    """Networks, optimizers and running means of a LAFITE training."""

    advice = "lower train.optimizer's learning rates or change train.losses.r1_gamma"

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
        losses = config.losses
        super().__init__(
            networks,
            config,
            rates=config.optimizer,
            reconstruction_weight=losses.reconstruction_weight,
            build_loss_scale=lambda: LossScale() if config.precision == "fp16" else None,
            lazy_intervals=(
                losses.path_length_interval if losses.path_length_weight > 0 else None,
                losses.r1_interval if losses.r1_gamma > 0 else None,
            ),
            mapper=mapper,
            processes=processes,
        )
        self.losses = LafiteLosses(
            networks.discriminator,
            encode_images,
            clip_side_px,
            config,
            augmenter=self.augmenter,
            gather_rows=processes.gather_rows,
        )
        self._averages_every_phase = config.ema.latent_average == "per_phase"
        self.path_length = PathLengthPenalty(config.losses.path_length_decay, processes.average).to(
            networks.generator.constant.device
        )

    def _draw_fakes(self, text_features: Tensor, random: StepRandom) -> Tensor:
        self._train_only(self.generator)
        styles = self._draw_styles(text_features.shape[0], random, update_average=True)
        fake: Tensor = self.generator.synthesis(
            styles, text_features, noise="random", generator=random.device
        )
        return fake

    def _play(
        self, batch: Batch, text_features: Tensor, images_seen: int, random: StepRandom
    ) -> StepLosses:
        """The paper's step: generator, path length, discriminator, R1."""
        losses, step_index = self.config.losses, images_seen // self.config.batch_size
        values = self._update_generator(batch, text_features, random)
        if losses.path_length_weight > 0 and step_index % losses.path_length_interval == 0:
            values |= self._regularize_generator(text_features, random)

        self._train_only(self.discriminator)
        values |= self._update_discriminator(batch.images, text_features, random)
        if losses.r1_gamma > 0 and step_index % losses.r1_interval == 0:
            values |= self._regularize_discriminator(batch.images, text_features, random)
        return values

    def _update_generator(
        self, batch: Batch, text_features: Tensor, random: StepRandom
    ) -> StepLosses:
        fake = self._draw_fakes(text_features, random)
        loss = self.losses.compute_generator_loss(fake, batch, text_features, random)
        return self.generator_updates.apply(loss.total, loss.terms, "generator")

    def _regularize_generator(self, text_features: Tensor, random: StepRandom) -> StepLosses:
        """Path length regularisation (Karras et al. 2020, equation 4) on a part of the batch."""
        losses = self.config.losses
        count = max(1, int(text_features.shape[0] * losses.path_length_batch_fraction))
        styles = self._draw_styles(count, random, update_average=self._averages_every_phase)
        fake = self.generator.synthesis(
            styles, text_features[:count], noise="random", generator=random.device
        )
        mean_before = self.path_length.mean_length.clone()
        scale = self.generator_updates.scale
        penalty = self.path_length(fake, styles, generator=random.device, scale=scale).mean()
        weight = losses.path_length_weight * losses.path_length_interval
        name, mean = "path_length_penalty", self.path_length.mean_length
        values = self.generator_updates.apply(weight * penalty, {name: penalty}, "path_length")
        # Where the lengths overflowed the running mean must not keep them.
        finite = torch.isfinite(values.get_on_device(name))
        mean.copy_(torch.where(finite, mean, mean_before))
        return values

    def _update_discriminator(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> StepLosses:
        with torch.no_grad():
            count, update = images.shape[0], self._averages_every_phase
            styles = self._draw_styles(count, random, update_average=update)
            fake = self.generator.synthesis(
                styles, text_features, noise="random", generator=random.device
            )
        loss = self.losses.compute_discriminator_loss(fake, images, text_features, random)
        values = self.discriminator_updates.apply(loss.total, loss.terms, "discriminator")
        if REAL_LOGITS_SIGN in loss.terms:
            values |= self.augmenter.observe(values.get_on_device(REAL_LOGITS_SIGN))
        return values

    def _regularize_discriminator(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> StepLosses:
        """R1 (Mescheder et al. 2018): gamma / 2 times the squared gradient at real images."""
        losses = self.config.losses
        scale = self.discriminator_updates.scale
        penalty = self.losses.compute_r1(images, text_features, random, scale=scale)
        total = losses.r1_gamma / 2 * losses.r1_interval * penalty
        return self.discriminator_updates.apply(total, {"r1_penalty": penalty}, "r1")

    def _draw_styles(self, count: int, random: StepRandom, *, update_average: bool) -> Tensor:
        """(count, num_layers, style_dim); with style mixing, one cutoff for the batch."""
        generator = self.generator
        styles: Tensor = generator.mapping(self._draw_latents(count, random))
        if update_average:
            generator.update_latent_average(self.processes.gather_rows(styles.detach()))
        if random.draw_fraction() < self.config.losses.style_mixing_probability:
            cutoff = random.draw_integer(1, generator.num_layers - 1)
            other = generator.mapping(self._draw_latents(count, random))
            styles = torch.cat([styles[:, :cutoff], other[:, cutoff:]], dim=1)
        return styles

    def _draw_latents(self, count: int, random: StepRandom) -> Tensor:
        shape = (count, self.config.generator.latent_dim)
        generator = random.device
        return draw_normal(shape, generator, device=generator.device)

    def _train_only(self, network: nn.Module) -> None:
        self.generator.requires_grad_(network is self.generator)
        self.discriminator.requires_grad_(network is self.discriminator)
        for block in self.discriminator.list_blocks()[: self.config.freeze_discriminator_blocks]:
            block.requires_grad_(False)

    def capture_state(self) -> StateTensors:
        """All of :class:`GameStep`, and the path-length mean."""
        return {**super().capture_state(), "path_length": dict(self.path_length.state_dict())}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        super().restore_state(tensors)
        self.path_length.load_state_dict(tensors["path_length"])
