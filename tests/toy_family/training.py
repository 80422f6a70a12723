"""A conditional GAN with the non-saturating loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.losses.adversarial import compute_discriminator_loss, compute_generator_loss
from clipgan.models.bundle import BundleInfo
from clipgan.random_draws import StepRandom, derive_seed
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.family import TrainingSpec
from clipgan.training.fine_tuning import Networks, load_start
from clipgan.training.state import StepLosses
from clipgan.training.updates import NetworkUpdates
from tests.toy_family.networks import ToyDiscriminator, ToyGenerator

ToyNetworks = Networks[ToyGenerator, ToyDiscriminator]


class ToyStep(AdversarialStep):
    advice = "lower train.toy.optimizer's learning rates"

    def __init__(
        self,
        networks: ToyNetworks,
        config: TrainConfig,
        conditions: Conditions,
        together: Processes,
    ) -> None:
        super().__init__(networks, config, mapper=conditions.mapper, processes=together)
        rates = config.toy.optimizer
        shared: dict[str, Any] = {"loss_scale": None, "lazy_interval": None, "processes": together}
        self.generator_updates, self.discriminator_updates = (
            NetworkUpdates(network, rate, rates, **shared)
            for network, rate in (
                (networks.generator, rates.generator_learning_rate),
                (networks.discriminator, rates.discriminator_learning_rate),
            )
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        texts = self.draw_conditions(batch, random)
        fake = self.draw_images(texts, random)
        self.discriminator.requires_grad_(False)
        loss = compute_generator_loss("logistic", self.discriminator(fake, texts))
        values = self.generator_updates.apply(loss, {"generator": loss}, "generator")
        self.discriminator.requires_grad_(True)
        real, unreal = batch.images, fake.detach()
        loss = compute_discriminator_loss(
            "logistic", self.discriminator(real, texts), self.discriminator(unreal, texts)
        )
        values |= self.discriminator_updates.apply(loss, {"discriminator": loss}, "discriminator")
        self.update_average(images_seen)
        return values

    def draw_images(self, texts: Tensor, random: StepRandom, codes: Tensor | None = None) -> Tensor:
        fake: Tensor = self.generator(self.draw_latents(len(texts), random, codes), texts)
        return fake

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(images, text_features)
        return logits


def build_networks(config: TrainConfig, clip: ClipEncoder) -> ToyNetworks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        sizes = {"resolution_px": config.resolution_px, "text_dim": clip.embed_dim}
        generator = ToyGenerator(**sizes, latent_dim=config.toy.latent_dim)
        discriminator = ToyDiscriminator(**sizes)
    generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return Networks(generator, discriminator, generator_ema)


def load_initial_weights(
    config: TrainConfig, networks: ToyNetworks, folder: Path, clip: Mapping[str, str]
) -> BundleInfo:
    bundle = load_start(folder, config.family, networks.generator.text_dim, clip)
    for network in (networks.generator, networks.generator_ema):
        network.load_state_dict(bundle.generator.state_dict())
    return bundle.info


def build_step(
    config: TrainConfig, networks: ToyNetworks, conditions: Conditions, processes: Processes
) -> ToyStep:
    return ToyStep(networks, config, conditions, processes)


SPEC = TrainingSpec(build_networks, load_initial_weights, build_step)
