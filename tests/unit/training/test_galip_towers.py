"""One GALIP step on every kind of CLIP: shapes, gradients, and a CLIP that stays as it was."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch

from clipgan.clip.builtin import BUILTIN_MODEL
from clipgan.clip.encoder import load_clip
from clipgan.families.galip.networks.vit_features import VitTower, build_vit_tower
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.galip.training.step import GalipStep
from clipgan.training.state import StepLosses
from tests.galip_parts import build_tower, galip_tree
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch, seed_step

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


NARROW = {  # side and patch in pixels, blocks, text width of the real ones; 64 wide
    "ViT-B-32": (224, 32, 12, 512),
    "ViT-B-16": (224, 16, 12, 512),
    "ViT-L-14": (224, 14, 24, 768),
}


def load_narrow_tower(model: str) -> VitTower:
    """Grid, depth and text width of the real one."""
    side_px, patch_px, depth, embed_dim = NARROW[model]
    return build_tower(
        side_px=side_px,
        patch_px=patch_px,
        width=64,
        depth=depth,
        embed_dim=embed_dim,
        model=model,
    )


def build_step(tower: VitTower, resolution_px: int, **changes: Any) -> GalipStep:
    last = tower.depth - 1
    tree = galip_tree(
        {
            "generator.prompt_tokens": min(8, last),
            "discriminator.tapped_blocks": [0, last // 2, last - 1][: 2 if last < 3 else 3],
            **changes,
        }
    )
    config = params_with(
        {
            "train.family": "galip",
            "train.resolution_px": resolution_px,
            "train.batch_size": BATCH,
            "train.precision": "fp32",
            "train.galip": tree,
        }
    ).train
    networks = build_galip_networks(config.galip, tower, resolution_px=resolution_px, seed=0)
    return GalipStep(networks, tower, config)


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
    check_step(tower, resolution_px)


@pytest.mark.parametrize(
    ("model", "resolution_px"), [("ViT-B-32", 64), ("ViT-B-16", 48), ("ViT-L-14", 40)]
)
def test_a_step_with_the_grid_of_this_clip(model: str, resolution_px: int) -> None:
    tower = load_narrow_tower(model)
    grid, _, depth, embed_dim = SIZES[model]
    assert (tower.grid_side, tower.depth, tower.embed_dim) == (grid, depth, embed_dim)
    check_step(tower, resolution_px)


def check_step(tower: VitTower, resolution_px: int) -> None:
    """Both networks learn, the G step leaves D alone, CLIP stays, images have their side."""
    before = {name: tensor.clone() for name, tensor in tower.visual.state_dict().items()}
    step = build_step(tower, resolution_px)
    old = {name: tensor.clone() for name, tensor in step.generator.state_dict().items()}
    batch = draw_batch(BATCH, resolution_px, tower.embed_dim)
    discriminators: list[dict[str, torch.Tensor]] = []
    update = step.generator_updates.apply

    def recording(*given: Any) -> StepLosses:
        discriminators.append({n: t.clone() for n, t in step.discriminator.state_dict().items()})
        return update(*given)

    step.generator_updates.apply = recording  # type: ignore[method-assign]
    losses = step.step(batch, 0, seed_step(0))
    after = step.discriminator.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in discriminators[0].items())
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
