"""The official LAFITE networks' numbers, and weights and inputs rebuilt by name.

A tensor is a standard normal draw seeded with the CRC-32 of its name; ``official_weights`` scales
it so that signals neither vanish nor grow.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipgan.families.lafite.config import ClipViewConfig
from clipgan.families.lafite.importer.names import (
    WeightName,
    list_discriminator_names,
    list_generator_names,
    rename_weights,
)
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.training.clip_view import draw_clip_views
from clipgan.images import to_clip_input
from clipgan.random_draws import StepRandom

DATA = Path(__file__).parent / "data"
DRAW_TOLERANCE = 1e-6
"""Of a tensor's largest magnitude, between normal draws of two processors.

A draw is r cos(a), with 0 <= a < 2 pi rounded in float32 to 2.4e-7 and r up to 6: where the cosine
is small that error is large beside the draw, but never beside r.
"""
TAGS = ("r64", "r32")
# Layers that learn at a hundredth of the rate store a hundred times the weight.
SLOW_LAYERS = (
    "mapping.fc",
    ".pre_0.",
    ".pre_1.",
    ".scale_layer_0.",
    ".scale_layer_1.",
    ".bias_layer_0.",
    ".bias_layer_1.",
)


@cache
def arrays() -> dict[str, Tensor]:
    """Every stored array."""
    with np.load(DATA / "lafite_small.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@cache
def facts() -> dict[str, Any]:
    """Configurations, hyper-parameters, key shapes, checksums and gradient norms."""
    tree: dict[str, Any] = json.loads((DATA / "lafite_small.json").read_text())
    return tree


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers that belong to a name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator)


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their length."""
    return rows / rows.norm(dim=1, keepdim=True)


def draw_images(name: str, batch: int, side: int, cells: int) -> Tensor:
    """Images of coarse squares with fine noise, in [-1, 1]."""
    coarse = draw(f"{name}/coarse", (batch, 3, cells, cells))
    coarse = coarse.repeat_interleave(side // cells, 2).repeat_interleave(side // cells, 3)
    return (0.6 * coarse + 0.2 * draw(f"{name}/fine", (batch, 3, side, side))).clamp(-1, 1)


def official_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """A state dict of the official network."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("resample_filter"):
            continue
        numbers = draw(name, tuple(shape))
        slow = any(part in name for part in SLOW_LAYERS)
        if name == "mapping.w_avg":
            numbers = torch.zeros(shape)
        elif len(shape) >= 2:
            numbers = numbers * (100.0 if slow else 1.0)
        elif name.endswith(("affine_0.bias", ".affine.bias")):
            numbers = 1.0 + 0.1 * numbers
        else:
            numbers = 0.1 * numbers * (100.0 if slow else 1.0)
        state[name] = numbers
    return state


def build_generator(tag: str, change: int = 256) -> LafiteGenerator:
    """Our generator with the reference's size and weights; ``change`` as in the official code."""
    config = facts()["config"][tag]
    generator = LafiteGenerator(
        resolution_px=config["img_resolution"],
        text_dim=config["f_dim"],
        latent_dim=config["z_dim"],
        style_dim=config["w_dim"],
        text_hidden_dim=512,
        mapping_layers=config["mapping_num_layers"],
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        text_concat_max_px=change,
    )
    shapes = facts()["state_dict_shapes"][tag if change == 256 else f"{tag}_change{change}"]
    official = official_weights(shapes["G"])
    generator.load_state_dict(rename_weights(list_names(tag, "G", change), official))
    return generator


def build_discriminator(tag: str, **options: Any) -> LafiteDiscriminator:
    """Our discriminator with the reference's size and weights; ``options`` of its form."""
    config = facts()["config"][tag]
    discriminator = LafiteDiscriminator(
        resolution_px=config["img_resolution"],
        text_dim=config["f_dim"],
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        minibatch_std_group=config["mbstd_group_size"],
        **options,
    )
    official = official_weights(facts()["state_dict_shapes"][tag]["D"])
    discriminator.load_state_dict(rename_weights(list_names(tag, "D"), official))
    return discriminator


def list_names(tag: str, network: str, change: int = 256) -> list[WeightName]:
    """Names of G's or D's weights, theirs and ours; ``change`` as in the official configuration."""
    config = facts()["config"][tag]
    side = config["img_resolution"]
    if network == "G":
        return list(list_generator_names(side, config["mapping_num_layers"], change))
    return list(list_discriminator_names(side))


def inputs(tag: str) -> dict[str, Tensor]:
    """Latents, features, noise and images of a case, by their rules."""
    config = facts()["config"][tag]
    side, dim = config["img_resolution"], config["f_dim"]
    image_features = unit(draw(f"{tag}/img_fts", (4, dim)))
    return {
        "latents": draw(f"{tag}/z", (4, config["z_dim"])),
        "image_features": image_features,
        "text_features": unit(0.3 * dim**0.5 * image_features + draw(f"{tag}/txt_fts", (4, dim))),
        "noise": draw(f"{tag}/random_noise", (4, dim)),
        "images": draw_images(f"{tag}/real", 4, side, 8),
        "path_noise": draw(f"{tag}/pl_noise", (2, 3, side, side)),
    }


def assert_matches(ours: Tensor, name: str, tolerance: float = 1e-4) -> None:
    """Largest difference at most ``tolerance`` of the stored array's largest magnitude."""
    wanted = arrays()[name]
    assert ours.shape == wanted.shape, f"{name}: {tuple(ours.shape)} for {tuple(wanted.shape)}"
    difference = (ours.detach() - wanted).abs().max() / wanted.abs().max()
    assert difference <= tolerance, f"{name}: off by {difference:.2e} of its maximum"


def clip_image_tower() -> torch.nn.Module:
    """The image tower of CLIP ViT-B/32 (QuickGELU) with weights by name."""
    import open_clip

    tower = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).visual
    with torch.no_grad():
        for name, tensor in tower.state_dict().items():
            numbers = draw(f"visual.{name}", tuple(tensor.shape))
            if tensor.ndim >= 2:
                numbers = numbers / (tensor[0].numel() ** 0.5)
            elif name.endswith(".weight"):
                numbers = 1.0 + 0.1 * numbers
            else:
                numbers = 0.1 * numbers
            tensor.copy_(numbers)
    return tower.eval().requires_grad_(False)


class ScriptedRandom(StepRandom):
    """Host numbers given in advance, in the order they are asked for."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(torch.device("cpu"))
        self.numbers = list(numbers)

    def draw_integer(self, low: int, high: int) -> int:
        number = self.numbers.pop(0)
        assert low <= number <= high
        return number


def official_view(**changes: Any) -> ClipViewConfig:
    """What CLIP sees in the official code."""
    form = {"kind": "random_crop", "min_side": 0.5, "crops": 1} | changes
    return ClipViewConfig(small_images="pad_white", antialias=False, **form)


def encode_padded(tower: torch.nn.Module, images: Tensor, left: int, top: int) -> Tensor:
    """CLIP embedding of images below 224 px, by way of the official view."""
    (view,) = draw_clip_views(images, official_view(), 224, ScriptedRandom(left, top))
    return unit(tower(to_clip_input(view, 224)))
