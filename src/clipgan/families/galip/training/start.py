"""GALIP's networks for a configuration and a CLIP: with random weights, or those of a bundle."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from clipgan.errors import ConfigError
from clipgan.families.galip.config import GalipConfig
from clipgan.families.galip.networks.discriminator import GalipDiscriminator
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.models.bundle import BundleInfo
from clipgan.random_draws import derive_seed
from clipgan.training.fine_tuning import Networks, check_architecture, load_start

logger = logging.getLogger(__name__)

GalipNetworks = Networks[GalipGenerator, GalipDiscriminator]
"""CLIP's tower is attached to both generators and part of none."""
_TEXT_SCALE = {"text_norm", "text_gain"}
"""How text features are scaled before any weight meets them."""


def build_galip_networks(
    config: GalipConfig, tower: VitTower, *, resolution_px: int, seed: int
) -> GalipNetworks:
    """Networks that fit the tower, their weights a function of ``seed`` alone, on the CPU.

    Raises:
        ConfigError: a tapped or prompted block is beyond the tower's depth, or the resolution is
            below that of the first block.
    """
    _check_blocks(config, tower)
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
    return Networks(generator, discriminator, generator_ema)


def load_galip_weights(
    networks: GalipNetworks, folder: Path, clip_fingerprint: Mapping[str, str]
) -> BundleInfo:
    """Put a GALIP bundle's generator into generator and average, its discriminator where it is.

    An official generator takes raw text features; from here on it is shown unit ones times
    ``text_gain``, which stands for their length.

    Raises:
        CheckpointError: the bundle is damaged, or was made by networks of another family or shape
            or for another CLIP; names the key and both values.
    """
    bundle = load_start(folder, "galip", networks.generator.text_dim, clip_fingerprint)
    scale = _TEXT_SCALE if bundle.takes_raw_texts else set()
    if scale:
        logger.info(
            "%s: made for raw text features; unit ones times text_gain = %s take their place",
            folder,
            networks.generator.text_gain,
        )
    stored, wanted = bundle.generator.architecture, networks.generator.architecture
    check_architecture(folder, "generator", stored, wanted, ignored=scale)
    weights = bundle.generator.state_dict()
    networks.generator.load_state_dict(weights)
    networks.generator_ema.load_state_dict(weights)
    if bundle.discriminator is not None:
        stored, wanted = bundle.discriminator.architecture, networks.discriminator.architecture
        check_architecture(folder, "discriminator", stored, wanted, ignored=scale)
        networks.discriminator.load_state_dict(bundle.discriminator.state_dict())
    return bundle.info


def _check_blocks(config: GalipConfig, tower: VitTower) -> None:
    blocks = config.discriminator.tapped_blocks
    if blocks[-1] >= tower.depth:
        raise ConfigError(
            f"tapped_blocks = {list(blocks)}: {tower.model} has {tower.depth} blocks, counted from "
            f"0 to {tower.depth - 1}; tap earlier ones"
        )
