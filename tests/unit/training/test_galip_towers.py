"""One GALIP step on every kind of CLIP: shapes, gradients, and a CLIP that stays as it was."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipgan.clip.builtin import BUILTIN_MODEL
from clipgan.clip.encoder import load_clip
from clipgan.clip.vit_taps import VitTower, build_vit_tower
from clipgan.data.batches import Batch
from clipgan.training.galip_networks import build_galip_networks
from clipgan.training.galip_step import GalipStep
from clipgan.training.random_streams import StepRandom
from tests.galip_parts import build_tower, galip_config
from tests.params import params_with

BATCH = 2
SIZES = {  # grid side, width, depth, text width; what the names promise
    BUILTIN_MODEL: (3, 256, 3, 256),
    "ViT-B-32": (7, 768, 12, 512),
    "ViT-B-16": (14, 768, 12, 512),
    "ViT-L-14": (16, 1024, 24, 768),
}


def load_tower(model: str) -> VitTower:
    """The built-in CLIP with its weights; others in full size with random ones."""
    if model == BUILTIN_MODEL:
        device = torch.device("cpu")
        return build_vit_tower(load_clip(model, "built-in", precision="fp32", device=device))
    tree = open_clip.get_model_config(model)
    vision = tree["vision_cfg"]
    return build_tower(
        side_px=vision["image_size"],
        patch_px=vision["patch_size"],
        width=vision["width"],
        depth=vision["layers"],
        embed_dim=tree["embed_dim"],
        model=model,
    )


def build_step(tower: VitTower, resolution_px: int, **changes: Any) -> GalipStep:
    last = tower.depth - 1
    config = galip_config(
        {
            "generator.prompt_tokens": min(8, last),
            "discriminator.tapped_blocks": [0, last // 2, last - 1][: 2 if last < 3 else 3],
            **changes,
        }
    )
    networks = build_galip_networks(config, tower, resolution_px=resolution_px, seed=0)
    train = params_with({"train.batch_size": BATCH, "train.precision": "fp32"}).train
    return GalipStep(networks, tower, train, config)


@pytest.mark.parametrize(
    ("model", "resolution_px"),
    [
        (BUILTIN_MODEL, 64),
        (BUILTIN_MODEL, 96),
        pytest.param("ViT-B-32", 224, marks=pytest.mark.slow),
        pytest.param("ViT-B-32", 512, marks=pytest.mark.slow),
        pytest.param("ViT-B-16", 128, marks=pytest.mark.slow),
        pytest.param("ViT-L-14", 224, marks=pytest.mark.slow),
    ],
)
def test_a_step_with_this_clip(model: str, resolution_px: int) -> None:
    tower = load_tower(model)
    assert (tower.grid_side, tower.width, tower.depth, tower.embed_dim) == SIZES[model]
    before = {name: tensor.clone() for name, tensor in tower.visual.state_dict().items()}
    step = build_step(tower, resolution_px)
    old = {name: tensor.clone() for name, tensor in step.generator.state_dict().items()}
    draws = torch.Generator().manual_seed(0)
    batch = Batch(
        images=torch.rand(BATCH, 3, resolution_px, resolution_px, generator=draws) * 2 - 1,
        image_features=F.normalize(torch.randn(BATCH, tower.embed_dim, generator=draws), dim=1),
        text_features=F.normalize(torch.randn(BATCH, tower.embed_dim, generator=draws), dim=1),
    )
    random = StepRandom(torch.device("cpu"))
    random.seed(0)
    losses = step.step(batch, 0, random)
    assert losses["generator_gradient_norm"] > 0
    assert losses["discriminator_gradient_norm"] > 0
    # Bridge and prompts learn through the frozen transformer from the first step on.
    new = step.generator.state_dict()
    for name in ("latent_projection.weight", "prompt_predictor.weight", "to_rgb.weight"):
        assert not torch.equal(old[name], new[name]), name
    assert all(torch.equal(before[n], t) for n, t in tower.visual.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in tower.visual.parameters())
    images = step.generator_ema(torch.randn(1, 8), batch.text_features[:1])
    assert images.shape == (1, 3, resolution_px, resolution_px)
