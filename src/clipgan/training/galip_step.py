"""One training step of GALIP (Tao et al. 2023, arXiv 2301.12959), with or without language.

Discriminator first, then the generator on the same fakes, as in the paper's code. CLIP looks at the
fakes once for both; its pass over real images and the discriminator's view of the fakes have no
graph. The conditions are those of LAFITE (``models.pseudo_text``): with captions the features of
captions, without language pseudo text features made from images, unit norm in both cases. GALIP on
pseudo text features is our own combination: neither paper has it. Two more things are not in the
paper: the average of the generator's weights, and augmentation before CLIP's eyes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from clipgan.clip.vit_taps import VitTower
from clipgan.config import AugmentationConfig, TrainConfig
from clipgan.config.galip import GalipConfig, LossScaleConfig
from clipgan.data.batches import Batch
from clipgan.devices import DTYPES
from clipgan.errors import ConfigError
from clipgan.losses.hinge import (
    compute_clip_similarity,
    compute_discriminator_hinge,
    compute_fake_hinge,
    compute_generator_hinge,
    compute_real_hinge,
    mismatch_texts,
)
from clipgan.losses.ma_gp import compute_ma_gp
from clipgan.models.pseudo_text import compute_training_text
from clipgan.training.augmenter import FixedAugmenter
from clipgan.training.ema import compute_ema_decay, update_ema
from clipgan.training.galip_networks import GalipNetworks
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import (
    NonFiniteLossError,
    StateTensors,
    capture_optimizer,
    restore_optimizer,
)

SMALLEST_LOSS_SCALE = 1.0
"""Non-finite fp16 gradients at or below this scale are no overflow: the training diverged."""


class GalipStep:
    """Networks, optimizers and loss scales of a GALIP training."""

    def __init__(
        self, networks: GalipNetworks, tower: VitTower, config: TrainConfig, galip: GalipConfig
    ) -> None:
        """``tower`` is the frozen CLIP, on the networks' device; of ``config`` the parameters that
        LAFITE shares are read: batch size, precision, augmentation, pseudo text, average.

        Raises:
            ConfigError: adaptive augmentation, which needs logits of unpaired real images.
        """
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.generator_ema = networks.generator_ema
        self.tower, self.config, self.galip = tower, config, galip
        self.augmenter = _build_augmenter(config.augmentation)
        self.device = next(self.generator.parameters()).device
        rates = galip.optimizer
        self.generator_optimizer = _build_adam(self.generator, rates.generator_learning_rate, galip)
        self.discriminator_optimizer = _build_adam(
            self.discriminator, rates.discriminator_learning_rate, galip
        )
        needs_scale = DTYPES[config.precision] == torch.float16
        self.generator_scaler = _build_scaler(self.device, galip.loss_scale, enabled=needs_scale)
        self.discriminator_scaler = _build_scaler(
            self.device, galip.loss_scale, enabled=needs_scale
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> dict[str, float]:
        """Update both networks and the average; see the protocol ``TrainingStep``."""
        text_features = compute_training_text(
            batch.image_features, batch.text_features, self.config.pseudo_text, random.device
        )
        fake = self._generate(text_features, random)
        fake_taps, fake_embeddings = self._encode_fakes(fake, random)
        with torch.no_grad():
            real_taps = self._encode_taps(batch.images, random)

        values = self._update_discriminator(real_taps, fake_taps.detach(), text_features)
        values |= self._update_generator(fake_taps, fake_embeddings, text_features)

        ema = self.config.ema
        decay = compute_ema_decay(
            images_seen, self.config.batch_size, ema.half_life_kimg, ema.ramp_up_fraction
        )
        update_ema(self.generator_ema, self.generator, decay)
        return values

    def _generate(self, text_features: Tensor, random: StepRandom) -> Tensor:
        shape = (len(text_features), self.generator.latent_dim)
        latents = torch.randn(shape, generator=random.device, device=random.device.device)
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
        if self.augmenter.policies:
            return self._encode_taps(fake, random), whole.embeddings
        return whole.taps, whole.embeddings

    def _update_discriminator(
        self, real_taps: Tensor, fake_taps: Tensor, text_features: Tensor
    ) -> dict[str, float]:
        """Hinge on matched, mismatched and fake pairs, and the penalty at the matched ones."""
        losses, network = self.galip.losses, self.discriminator
        network.requires_grad_(True)
        real_taps = real_taps.detach().requires_grad_()
        sentences = network.scale_texts(text_features).requires_grad_()
        with self._autocast():
            features = network(real_taps)
            matched = network.compute_logits(features, sentences)
            mismatched = network.compute_logits(features, mismatch_texts(sentences))
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
        scaler = self.discriminator_scaler
        if losses.ma_gp_weight > 0:
            terms["ma_gp"] = (
                losses.ma_gp_weight
                * compute_ma_gp(
                    matched,
                    (real_taps, sentences),
                    power=losses.ma_gp_power,
                    gradient_scale=scaler.get_scale(),
                ).mean()
            )
            total = total + terms["ma_gp"]
        logits = {"matched": matched, "mismatched": mismatched, "fake": fake}
        terms |= {f"{name}_logits": values.mean() for name, values in logits.items()}
        torch.autograd.backward(scaler.scale(total))
        return _apply_update(self.discriminator_optimizer, scaler, terms, "discriminator")

    def _update_generator(
        self, fake_taps: Tensor, fake_embeddings: Tensor | None, text_features: Tensor
    ) -> dict[str, float]:
        """Adversarial term and CLIP's opinion of how well fakes fit their texts."""
        network = self.discriminator.requires_grad_(False)
        sentences = network.scale_texts(text_features)
        with self._autocast():
            logits = network.compute_logits(network(fake_taps), sentences)
        terms = {"generator_adversarial": compute_generator_hinge(logits)}
        total = terms["generator_adversarial"]
        if fake_embeddings is not None:
            terms["clip_similarity"] = compute_clip_similarity(fake_embeddings, text_features)
            weight = self.galip.losses.clip_similarity_weight
            total = total - weight * terms["clip_similarity"]
        torch.autograd.backward(self.generator_scaler.scale(total))
        return _apply_update(self.generator_optimizer, self.generator_scaler, terms, "generator")

    def _prepare(self, images: Tensor) -> Tensor:
        return self.tower.prepare(images, self.galip.clip_input)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def capture_state(self) -> StateTensors:
        """Networks, average, both Adams and, under fp16, both loss scales."""
        return {
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "generator_ema": dict(self.generator_ema.state_dict()),
            "generator_optimizer": capture_optimizer(self.generator_optimizer),
            "discriminator_optimizer": capture_optimizer(self.discriminator_optimizer),
            "generator_loss_scale": _capture_scaler(self.generator_scaler),
            "discriminator_loss_scale": _capture_scaler(self.discriminator_scaler),
        }

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.generator.load_state_dict(tensors["generator"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        self.generator_ema.load_state_dict(tensors["generator_ema"])
        restore_optimizer(self.generator_optimizer, tensors["generator_optimizer"])
        restore_optimizer(self.discriminator_optimizer, tensors["discriminator_optimizer"])
        _restore_scaler(self.generator_scaler, tensors["generator_loss_scale"])
        _restore_scaler(self.discriminator_scaler, tensors["discriminator_loss_scale"])


def _build_augmenter(config: AugmentationConfig) -> FixedAugmenter:
    if config.kind == "ada":
        raise ConfigError(
            "train.augmentation.kind = 'ada' is for LAFITE: set it to diffaugment or none"
        )
    return FixedAugmenter(config.policies if config.kind == "diffaugment" else ())


def _build_adam(
    network: torch.nn.Module, learning_rate: float, galip: GalipConfig
) -> torch.optim.Adam:
    settings = galip.optimizer
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def _build_scaler(
    device: torch.device, config: LossScaleConfig, *, enabled: bool
) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(
        device.type,
        init_scale=config.initial_scale,
        growth_interval=config.growth_interval_steps,
        enabled=enabled,
    )


def _capture_scaler(scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
    """Its scale and the steps since it last changed; nothing where it is switched off."""
    numbers = scaler.state_dict()
    return {
        name: torch.tensor(numbers[name], dtype=torch.float64)
        for name in ("scale", "_growth_tracker")
        if name in numbers
    }


def _restore_scaler(scaler: torch.amp.GradScaler, tensors: Mapping[str, Tensor]) -> None:
    if scaler.is_enabled():
        scale, steps = float(tensors["scale"]), int(tensors["_growth_tracker"])
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": steps})


def _apply_update(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    terms: Mapping[str, Tensor],
    phase: str,
) -> dict[str, float]:
    """Check the losses and the gradient, then update; gives the losses as numbers.

    Under fp16 a gradient that is not finite is taken for an overflow while the loss scale can still
    be halved: the step is left out and counted as ``<phase>_skipped_steps``.

    Raises:
        NonFiniteLossError: the weights were not touched.
    """
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    stacked = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()])
    norm_name = f"{phase}_gradient_norm"
    values = dict(zip([*terms, norm_name], stacked.tolist(), strict=True))
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    overflowed = norm_name not in finite and scaler.get_scale() > SMALLEST_LOSS_SCALE
    if len(finite) < len(values) and not overflowed:
        scaler.update()  # or it refuses the next step, after a roll-back
        optimizer.zero_grad(set_to_none=True)
        name = next(name for name in values if name not in finite)
        raise NonFiniteLossError(name, values[name])
    if scaler.is_enabled():
        finite[f"{phase}_skipped_steps"] = float(overflowed)
        finite[f"{phase}_loss_scale"] = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return finite
