"""The official GALIP networks' numbers, and weights and inputs rebuilt by name.

A tensor is a standard normal draw seeded with the CRC-32 of its name, scaled so that signals
neither vanish nor grow. Parts of CLIP are seeded by CLIP's names.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipgan.families.galip.importer.weights import (
    TOWER_PREFIX,
    translate_discriminator_key,
    translate_generator_key,
)
from clipgan.families.galip.networks.discriminator import GalipDiscriminator
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.images import CLIP_MEAN, CLIP_STD
from tests.numerics.lafite_reference import clip_image_tower, draw, draw_images

DATA = Path(__file__).parent / "data"
BASE_CHANNELS = 16


@cache
def arrays() -> dict[str, Tensor]:
    """Every stored array."""
    with np.load(DATA / "galip_small.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@cache
def facts() -> dict[str, Any]:
    """Configuration, key shapes, checksums and gradient norms."""
    tree: dict[str, Any] = json.loads((DATA / "galip_small.json").read_text())
    return tree


def official_weights(network: str) -> dict[str, Tensor]:
    """A state dict of an official network (netG without its tower, netD, netC)."""
    stored = {"netG": "netG_without_clip_tower"}.get(network, network)
    return {
        name: apply_rule(name, tuple(shape))
        for name, shape in facts()["state_dict_shapes"][stored].items()
    }


def apply_rule(name: str, shape: tuple[int, ...], *, norm: bool = False) -> Tensor:
    """The tensor of a name; ``norm``: it is a layer norm's weight."""
    numbers = draw(name, shape)
    if len(shape) >= 2:
        return numbers / numbers[0].numel() ** 0.5
    return 1.0 + 0.1 * numbers if norm else 0.1 * numbers


@cache
def tower() -> VitTower:
    """CLIP ViT-B/32 (QuickGELU) with weights by name."""
    visual = clip_image_tower()
    return VitTower(visual, side_px=224, mean=CLIP_MEAN, std=CLIP_STD, model="ViT-B-32")


def tower_weights() -> dict[str, Tensor]:
    """The tower's entries of an official netG."""
    visual = tower().visual.state_dict()
    return {
        TOWER_PREFIX + name: tensor
        for name, tensor in visual.items()
        if not name.startswith("ln_post") and name != "proj"
    }


def build_generator() -> GalipGenerator:
    """Our generator with the reference's sizes and weights, and the tower attached."""
    generator = GalipGenerator(
        resolution_px=224,
        text_dim=512,
        latent_dim=100,
        base_channels=BASE_CHANNELS,
        bridge_channels=64,
        bridge_blocks=4,
        prompt_tokens=8,
        first_prompted_block=1,
        bridge_weight=1.0,
        vit_weight=0.1,
        text_gain=1.0,
        text_norm="raw",
        vit_width=768,
        vit_grid_side=7,
    )
    weights = official_weights("netG")
    generator.load_state_dict({translate_generator_key(k): v for k, v in weights.items()})
    return generator.attach_tower(tower())


def build_discriminator(clip_input: Any) -> GalipDiscriminator:
    """Our discriminator with the reference's sizes and weights."""
    discriminator = GalipDiscriminator(
        text_dim=512,
        tapped_blocks=[1, 4, 8],
        channels=512,
        head_channels=128,
        text_gain=1.0,
        clip_input=clip_input,
        vit_width=768,
        vit_grid_side=7,
    )
    weights = {
        f"{net}.{name}": tensor
        for net in ("netD", "netC")
        for name, tensor in official_weights(net).items()
    }
    unused = facts()["netD_parameters_without_gradient"]
    discriminator.load_state_dict(
        {
            translate_discriminator_key(name): tensor
            for name, tensor in weights.items()
            if name.removeprefix("netD.") not in unused
        }
    )
    return discriminator


def latents() -> Tensor:
    """(4, 100)."""
    return draw("galip/noise", (4, 100))


def sentences() -> Tensor:
    """(4, 512), not normalised."""
    return 0.4 * draw("galip/sent", (4, 512))


def real_images(side: int) -> Tensor:
    """(4, 3, side, side), side 224 or 256."""
    return draw_images(f"galip/real{side}", 4, side, {224: 14, 256: 16}[side])


def assert_matches(ours: Tensor, name: str, tolerance: float = 1e-4) -> None:
    """Largest difference at most ``tolerance`` of the stored array's largest magnitude."""
    wanted = arrays()[name]
    assert ours.shape == wanted.shape, f"{name}: {tuple(ours.shape)} for {tuple(wanted.shape)}"
    difference = (ours.detach() - wanted).abs().max() / wanted.abs().max()
    assert difference <= tolerance, f"{name}: off by {difference:.2e} of its maximum"


def statistics(values: Tensor, dims: int = 1) -> Tensor:
    """Mean, population deviation and l2 norm over all but the first ``dims`` dimensions."""
    rows = values.flatten(dims)
    return torch.stack([rows.mean(-1), rows.std(-1, unbiased=False), rows.norm(dim=-1)], -1)
