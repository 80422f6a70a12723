"""One training step of LAFITE (Zhou et al. 2022, arXiv 2111.13792) on a StyleGAN2 backbone.

A step has up to four phases, each with its own update, in StyleGAN2's order (Karras et al. 2020):
generator, path length (every ``path_length_interval`` steps), discriminator, R1 (every
``r1_interval`` steps). Lazy phases are weighted by their interval, and Adam's rate and betas are
corrected for the extra updates (ibid., appendix B). One draw of pseudo text features serves all
phases of a step; every phase draws latents of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.losses.adversarial import compute_discriminator_loss, compute_generator_loss
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.losses.penalties import PathLengthPenalty, compute_r1_penalty
from clipgan.losses.reconstruction import compute_reconstruction_loss
from clipgan.models.lafite_discriminator import DiscriminatorOutput
from clipgan.models.pseudo_text import compute_training_text
from clipgan.training.augment import augment_images
from clipgan.training.ema import compute_ema_decay, update_ema
from clipgan.training.fine_tuning import Networks
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import (
    NonFiniteLossError,
    StateTensors,
    capture_optimizer,
    restore_optimizer,
)


class LafiteStep:
    """Networks, optimizers and running means of a LAFITE training."""

    def __init__(
        self,
        networks: Networks,
        encode_images: Callable[[Tensor], Tensor],
        config: TrainConfig,
    ) -> None:
        """``encode_images`` is the frozen CLIP: (N, 3, H, W) in [-1, 1] -> (N, D) unit vectors,
        differentiable with respect to the images."""
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.generator_ema = networks.generator_ema
        self.encode_images = encode_images
        self.config = config
        self.path_length = PathLengthPenalty(config.losses.path_length_decay).to(
            networks.generator.constant.device
        )
        losses, rates = config.losses, config.optimizer
        self.generator_optimizer = _build_adam(
            networks.generator,
            rates.generator_learning_rate,
            config,
            losses.path_length_interval if losses.path_length_weight > 0 else None,
        )
        self.discriminator_optimizer = _build_adam(
            networks.discriminator,
            rates.discriminator_learning_rate,
            config,
            losses.r1_interval if losses.r1_gamma > 0 else None,
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> dict[str, float]:
        """Update both networks and the average; see the protocol ``TrainingStep``."""
        step_index = images_seen // self.config.batch_size
        text_features = compute_training_text(
            batch.image_features,
            batch.text_features,
            self.config.pseudo_text,
            random.device,
        )

        if images_seen < self.config.warm_up_images:
            values = self._warm_up(batch.images, text_features, random)
        else:
            values = self._play(batch.images, text_features, step_index, random)

        ema = self.config.ema
        decay = compute_ema_decay(
            images_seen, self.config.batch_size, ema.half_life_kimg, ema.ramp_up_fraction
        )
        update_ema(self.generator_ema, self.generator, decay)
        return values

    def _warm_up(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> dict[str, float]:
        """Reconstruction alone, before the game starts (not in the paper; see ADR 0008)."""
        self._train_only(self.generator)
        styles = self._draw_styles(text_features.shape[0], random, update_average=True)
        fake = self.generator.synthesis(
            styles, text_features, noise="random", generator=random.device
        )
        terms = {"reconstruction": compute_reconstruction_loss(fake, images)}
        torch.autograd.backward(self.config.losses.reconstruction_weight * terms["reconstruction"])
        return _apply_update(self.generator_optimizer, terms, "generator")

    def _play(
        self, images: Tensor, text_features: Tensor, step_index: int, random: StepRandom
    ) -> dict[str, float]:
        """The paper's step: generator, path length, discriminator, R1."""
        losses = self.config.losses
        self._train_only(self.generator)
        values = self._update_generator(images, text_features, random)
        if losses.path_length_weight > 0 and step_index % losses.path_length_interval == 0:
            values |= self._regularize_generator(text_features, random)

        self._train_only(self.discriminator)
        values |= self._update_discriminator(images, text_features, random)
        if losses.r1_gamma > 0 and step_index % losses.r1_interval == 0:
            values |= self._regularize_discriminator(images, text_features, random)
        return values

    def _update_generator(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> dict[str, float]:
        """Non-saturating loss, L_ConD on the fakes' semantic features, L_ConG on CLIP's view, and
        the distance to the image whose feature the pseudo text comes from."""
        losses = self.config.losses
        styles = self._draw_styles(text_features.shape[0], random, update_average=True)
        fake = self.generator.synthesis(
            styles, text_features, noise="random", generator=random.device
        )
        output, logits = self._discriminate(fake, text_features, random)
        terms = {"generator_adversarial": compute_generator_loss(logits)}
        total = terms["generator_adversarial"]
        if losses.discriminator_contrastive_weight > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            terms["generator_contrastive"] = contrast
            total = total + losses.discriminator_contrastive_weight * contrast
        if losses.clip_contrastive_weight > 0:
            features = self.encode_images(self._crop_view(fake, random))
            contrast = self._contrast(features, text_features)
            terms["clip_contrastive"] = contrast
            total = total + losses.clip_contrastive_weight * contrast
        if losses.reconstruction_weight > 0:
            terms["reconstruction"] = compute_reconstruction_loss(fake, images)
            total = total + losses.reconstruction_weight * terms["reconstruction"]
        torch.autograd.backward(total)
        return _apply_update(self.generator_optimizer, terms, "generator")

    def _regularize_generator(self, text_features: Tensor, random: StepRandom) -> dict[str, float]:
        """Path length regularisation (Karras et al. 2020, equation 4) on a part of the batch."""
        losses = self.config.losses
        count = max(1, round(text_features.shape[0] * losses.path_length_batch_fraction))
        styles = self._draw_styles(count, random, update_average=False)
        fake = self.generator.synthesis(
            styles, text_features[:count], noise="random", generator=random.device
        )
        penalty = self.path_length(fake, styles, generator=random.device).mean()
        weight = losses.path_length_weight * losses.path_length_interval
        torch.autograd.backward(weight * penalty)
        return _apply_update(
            self.generator_optimizer, {"path_length_penalty": penalty}, "path_length"
        )

    def _update_discriminator(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> dict[str, float]:
        """Logistic loss and L_ConD on the real images' semantic features."""
        losses = self.config.losses
        with torch.no_grad():
            styles = self._draw_styles(images.shape[0], random, update_average=False)
            fake = self.generator.synthesis(
                styles, text_features, noise="random", generator=random.device
            )
        _, fake_logits = self._discriminate(fake, text_features, random)
        output, real_logits = self._discriminate(images, text_features, random)
        terms = {"discriminator_adversarial": compute_discriminator_loss(real_logits, fake_logits)}
        total = terms["discriminator_adversarial"]
        if losses.discriminator_contrastive_weight > 0:
            contrast = self._contrast(output.semantic_features, text_features)
            terms["discriminator_contrastive"] = contrast
            total = total + losses.discriminator_contrastive_weight * contrast
        terms["real_logits"] = real_logits.mean()
        terms["fake_logits"] = fake_logits.mean()
        torch.autograd.backward(total)
        return _apply_update(self.discriminator_optimizer, terms, "discriminator")

    def _regularize_discriminator(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> dict[str, float]:
        """R1 (Mescheder et al. 2018): gamma / 2 times the squared gradient at real images."""
        losses = self.config.losses
        images = images.detach().requires_grad_()
        _, logits = self._discriminate(images, text_features, random)
        penalty = compute_r1_penalty(logits, images).mean()
        torch.autograd.backward(losses.r1_gamma / 2 * losses.r1_interval * penalty)
        return _apply_update(self.discriminator_optimizer, {"r1_penalty": penalty}, "r1")

    def _draw_styles(self, count: int, random: StepRandom, *, update_average: bool) -> Tensor:
        """(count, num_layers, style_dim); with style mixing, one cutoff for the batch."""
        generator = self.generator
        styles = generator.mapping(self._draw_latents(count, random))
        if update_average:
            generator.update_latent_average(styles)
        if random.draw_fraction() < self.config.losses.style_mixing_probability:
            cutoff = random.draw_integer(1, generator.num_layers - 1)
            other = generator.mapping(self._draw_latents(count, random))
            styles = torch.cat([styles[:, :cutoff], other[:, cutoff:]], dim=1)
        return styles

    def _draw_latents(self, count: int, random: StepRandom) -> Tensor:
        shape = (count, self.config.generator.latent_dim)
        generator = random.device
        return torch.randn(shape, generator=generator, device=generator.device)

    def _discriminate(
        self, images: Tensor, text_features: Tensor, random: StepRandom
    ) -> tuple[DiscriminatorOutput, Tensor]:
        """D(x, h') = f_d(x) + <h', f_s(x)> after augmentation, per sample."""
        augmented = augment_images(images, self.config.augmentations, random.device)
        output = self.discriminator(augmented)
        return output, self.discriminator.compute_logits(output, text_features)

    def _contrast(self, features: Tensor, text_features: Tensor) -> Tensor:
        return compute_contrastive_loss(features, text_features, self.config.losses.temperature)

    def _crop_view(self, images: Tensor, random: StepRandom) -> Tensor:
        """A random square of the images, the same for the batch: what CLIP looks at."""
        side_px = images.shape[-1]
        smallest = math.ceil(side_px * self.config.clip_view_min_side)
        side = random.draw_integer(smallest, side_px)
        top = random.draw_integer(0, side_px - side)
        left = random.draw_integer(0, side_px - side)
        return images[:, :, top : top + side, left : left + side]

    def _train_only(self, network: nn.Module) -> None:
        self.generator.requires_grad_(network is self.generator)
        self.discriminator.requires_grad_(network is self.discriminator)

    def capture_state(self) -> StateTensors:
        """Networks, average, both Adams and the path-length mean."""
        return {
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "generator_ema": dict(self.generator_ema.state_dict()),
            "generator_optimizer": capture_optimizer(self.generator_optimizer),
            "discriminator_optimizer": capture_optimizer(self.discriminator_optimizer),
            "path_length": dict(self.path_length.state_dict()),
        }

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.generator.load_state_dict(tensors["generator"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        self.generator_ema.load_state_dict(tensors["generator_ema"])
        restore_optimizer(self.generator_optimizer, tensors["generator_optimizer"])
        restore_optimizer(self.discriminator_optimizer, tensors["discriminator_optimizer"])
        self.path_length.load_state_dict(tensors["path_length"])


def _build_adam(
    network: nn.Module, learning_rate: float, config: TrainConfig, interval: int | None
) -> torch.optim.Adam:
    """Adam corrected by k / (k + 1) for a lazy phase every k steps (None: no such phase)."""
    ratio = interval / (interval + 1) if interval is not None else 1.0
    settings = config.optimizer
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate * ratio,
        betas=(settings.beta1**ratio, settings.beta2**ratio),
        eps=settings.epsilon,
        fused=True,
    )


def _apply_update(
    optimizer: torch.optim.Optimizer, terms: Mapping[str, Tensor], phase: str
) -> dict[str, float]:
    """Check the losses and the gradient, then update; gives the losses as numbers.

    All values reach Python in one transfer, so that a GPU is waited for once a phase.

    Raises:
        NonFiniteLossError: the weights were not touched.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    stacked = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()])
    names = [*terms, f"{phase}_gradient_norm"]
    values = dict(zip(names, stacked.tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(name, value)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values
