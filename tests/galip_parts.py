"""Small GALIP configurations and towers for tests."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import VisionTransformer

from clipgan.families.galip.config import GalipConfig
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.images import CLIP_MEAN, CLIP_STD

SIDE_PX, GRID, WIDTH, DEPTH, EMBED_DIM = 32, 4, 16, 4, 12
TREE: dict[str, Any] = {
    "clip_input": "correct",
    "text_gain": 2.0,
    "generator": {
        "latent_dim": 8,
        "base_channels": 2,
        "bridge_channels": 4,
        "bridge_blocks": 2,
        "prompt_tokens": 2,
        "first_prompted_block": 1,
        "bridge_weight": 1.0,
        "vit_weight": 0.1,
    },
    "discriminator": {"tapped_blocks": [0, 2, 3], "channels": 10, "head_channels": 6},
    "losses": {
        "mismatched_share": 0.5,
        "ma_gp_weight": 2.0,
        "ma_gp_power": 6.0,
        "clip_similarity_weight": 4.0,
        "reconstruction_weight": 0.0,
        "reconstruction_fade_images": 0,
    },
    "optimizer": {
        "generator_learning_rate": 0.001,
        "discriminator_learning_rate": 0.004,
        "beta1": 0.0,
        "beta2": 0.9,
        "epsilon": 1.0e-8,
    },
    "loss_scale": {"initial_scale": 1024.0, "growth_interval_steps": 2},
}


def galip_config(changes: dict[str, Any] | None = None) -> GalipConfig:
    """``{"losses.ma_gp_weight": 0.0, ...}`` over a tiny configuration."""
    return GalipConfig.model_validate(galip_tree(changes))


def galip_tree(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tree behind :func:`galip_config`; an unknown key in ``changes`` is an error."""
    tree: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in TREE.items()}
    for dotted, value in (changes or {}).items():
        *sections, key = dotted.split(".")
        node = tree
        for section in sections:
            node = node[section]
        if key not in node:
            raise KeyError(dotted)
        node[key] = value
    return tree


def build_tower(
    *,
    side_px: int = SIDE_PX,
    patch_px: int = 8,
    width: int = WIDTH,
    depth: int = DEPTH,
    embed_dim: int = EMBED_DIM,
    pool_type: str = "tok",
    seed: int = 0,
    model: str = "tiny-vit",
) -> VitTower:
    """A ViT of open_clip with random weights that make every layer count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        visual = VisionTransformer(
            image_size=side_px,
            patch_size=patch_px,
            width=width,
            layers=depth,
            heads=max(1, width // 64),
            mlp_ratio=4.0,
            output_dim=embed_dim,
            pool_type=pool_type,
        )
    return VitTower(visual, side_px=side_px, mean=CLIP_MEAN, std=CLIP_STD, model=model)
