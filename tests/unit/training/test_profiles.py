"""Every profile's networks can be built at full size, and its losses take a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu.setups import FAMILIES, TINY, build_training
from clipgan.config import Params, load_profile
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.lafite.training.start import build_lafite_networks
from tests.galip_parts import build_tower

PROFILES = sorted((Path(__file__).parents[3] / "profiles").glob("*.yaml"))
BUILT_IN = "clipgan-vit-h32-96"
MAP_CHANNELS = [24, 48, 120, 352]
"""Of the built-in CLIP's trunk, which heads look at."""
# The vision tower of the other CLIP that profiles name.
VIT_B_32 = {"side_px": 224, "patch_px": 32, "width": 768, "depth": 12, "embed_dim": 512}

each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
each_family = pytest.mark.parametrize("family", FAMILIES)


def describe_tower(params: Params) -> dict[str, int]:
    if params.features.clip_model != BUILT_IN:
        assert params.features.clip_model == "ViT-B-32-quickgelu"
        return VIT_B_32
    recipe = params.pretrain_clip
    return {
        "side_px": recipe.image_side_px,
        "patch_px": 32,
        "width": recipe.vision_width,
        "depth": recipe.vision_layers,
        "embed_dim": recipe.embed_dim,
    }


@each_profile
@each_family
def test_networks_are_built_at_full_size(profile: Path, family: str) -> None:
    params = load_profile(profile)
    with torch.device("meta"):
        tower = build_tower(**describe_tower(params))
        # With the tower alone: the whole CLIP has weights to load.
        networks: Any = build_lafite_networks(params.train, tower.embed_dim, MAP_CHANNELS)
        if family == "galip":
            networks = build_galip_networks(
                params.train.galip, tower, resolution_px=params.train.resolution_px, seed=0
            )
    for network in (networks.generator, networks.discriminator):
        parameters = list(network.parameters())
        assert {parameter.device.type for parameter in parameters} == {"meta"}
        assert sum(parameter.numel() for parameter in parameters) > 100_000


@pytest.mark.slow
@each_profile
@each_family
def test_a_tiny_step_is_taken(profile: Path, family: str) -> None:
    training = build_training(family, 16, "fp32", TINY, torch.device("cpu"), profile=profile)
    losses = training.run()
    assert losses
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in losses.values())
