"""GALIP's networks for a configuration and a CLIP, with random weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from clipgan.clip.vit_taps import VitTower
from clipgan.config.galip import GalipConfig
from clipgan.errors import ConfigError
from clipgan.models.galip_discriminator import GalipDiscriminator
from clipgan.models.galip_generator import GalipGenerator
from clipgan.training.random_streams import derive_seed


@dataclass(frozen=True)
class GalipNetworks:
    """What a training updates; CLIP's tower is attached to both generators and part of none."""

    generator: GalipGenerator
    discriminator: GalipDiscriminator
    generator_ema: GalipGenerator


def build_galip_networks(
    config: GalipConfig, tower: VitTower, *, resolution_px: int, seed: int
) -> GalipNetworks:
    """Networks that fit the tower, their weights a function of ``seed`` alone, on the CPU.

    Raises:
        ConfigError: a tapped or prompted block is beyond the tower's depth, or the resolution is
            below that of the first block.
    """
    _check_taps(config, tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        generator = GalipGenerator(
            resolution_px=resolution_px,
            text_dim=tower.embed_dim,
            text_gain=config.text_gain,
            text_norm="unit",
            **config.generator.model_dump(),
            vit_width=tower.width,
            vit_grid_side=tower.grid_side,
        ).attach_tower(tower)
        discriminator = GalipDiscriminator(
            text_dim=tower.embed_dim,
            text_gain=config.text_gain,
            clip_input=config.clip_input,
            **config.discriminator.model_dump(),
            vit_width=tower.width,
            vit_grid_side=tower.grid_side,
        )
    generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return GalipNetworks(generator, discriminator, generator_ema)


def _check_taps(config: GalipConfig, tower: VitTower) -> None:
    blocks = config.discriminator.tapped_blocks
    if blocks[-1] >= tower.depth:
        raise ConfigError(
            f"tapped_blocks = {list(blocks)}: {tower.model} has {tower.depth} blocks, counted from "
            f"0 to {tower.depth - 1}; tap earlier ones"
        )
