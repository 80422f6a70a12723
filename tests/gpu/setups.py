"""Training steps on any device, with the same random numbers everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan import random_draws
from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.galip.training.step import GalipStep
from clipgan.families.lafite.training.start import build_lafite_networks, set_precision
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.images import CLIP_MEAN, CLIP_STD, to_clip_input
from clipgan.random_draws import StepRandom, derive_seed
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.state import StepLosses
from tests.galip_parts import TREE, build_tower
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch

FAMILIES = ("lafite", "galip")
TINY: dict[str, Any] = {
    "batch_size": 8,
    "resolution_px": 16,
    "lafite.generator.latent_dim": 16,
    "lafite.generator.style_dim": 16,
    "lafite.generator.text_hidden_dim": 16,
    "lafite.generator.mapping_layers": 2,
    "lafite.generator.channel_base": 256,
    "lafite.generator.channel_max": 16,
    "lafite.discriminator.channel_base": 256,
    "lafite.discriminator.channel_max": 16,
    "galip": {**TREE, "losses": {**TREE["losses"], "reconstruction_weight": 50.0}},
}


class Eye:
    """A frozen random ViT that sees images and shares its tower with GALIP."""

    def __init__(self, device: torch.device, *, dtype: torch.dtype = torch.float32) -> None:
        large = device.type == "cuda"
        self.tower: VitTower = build_tower(**(CARD_TOWER if large else {}))
        self.tower.visual.to(device=device, dtype=dtype)
        self.side_px, self.embed_dim = self.tower.side_px, self.tower.embed_dim
        self.dtype = dtype

    def encode_images(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, D) unit vectors."""
        pixels = to_clip_input(images.float(), self.side_px, CLIP_MEAN, CLIP_STD)
        return F.normalize(self.tower.visual(pixels.to(self.dtype)).float(), dim=1)


CARD_TOWER = {"side_px": 96, "patch_px": 16, "width": 128, "depth": 4, "embed_dim": 64}


def build_config(family: str, size_of: torch.device, changes: dict[str, Any]) -> TrainConfig:
    """``params.yaml``'s own sizes for a card, tiny ones for the CPU."""
    settings = {
        "family": family,
        "initial_weights": "none",
        "precision": "fp32",
        **(TINY if size_of.type == "cpu" else {}),
        **changes,
    }
    return params_with({f"train.{key}": value for key, value in settings.items()}).train


def build_step(
    family: str,
    device: torch.device,
    *,
    size_of: torch.device | None = None,
    processes: Processes = SINGLE,
    **changes: Any,
) -> AdversarialStep:
    """A step with the weights of its seed on ``device``.

    Args:
        size_of: build the networks of this device's size; None: of ``device``.
        changes: keys below ``train``, dots as two underscores.
    """
    size_of = size_of or device
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config = build_config(family, size_of, dotted)
    eye = Eye(size_of)
    eye.tower.visual.to(device)
    if family == "galip":
        mates = build_galip_networks(
            config.galip, eye.tower, resolution_px=config.resolution_px, seed=config.seed
        )
        mates.move_to(device)
        return GalipStep(mates, eye.tower, config, processes=processes)
    networks = build_lafite_networks(config, eye.embed_dim)
    set_precision(networks, config)
    networks.move_to(device)
    side = eye.side_px
    return LafiteStep(networks, eye.encode_images, config, clip_side_px=side, processes=processes)


def place_batch(step: AdversarialStep, device: torch.device, seed: int = 0) -> Batch:
    """Random images and features of a step's size."""
    config, dim = step.config, step.generator.text_dim
    batch = draw_batch(config.batch_size, config.resolution_px, dim, seed=seed)
    return replace(
        batch,
        images=batch.images.to(device),
        image_features=batch.image_features.to(device),
        text_features=batch.text_features.to(device),
    )


def run_step(step: AdversarialStep, device: torch.device, index: int) -> StepLosses:
    """The step's ``index``-th update, on a batch and random numbers of its own."""
    random = StepRandom(device)
    random.seed(step.config.seed, 0, 0, index)
    images_seen = index * step.config.batch_size
    return step.step(place_batch(step, device, index), images_seen, random)


def draw_everywhere_alike(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Random numbers come from the CPU and are carried to the device: a card's streams are others.

    Gives a function that starts the numbers anew.
    """
    stream = torch.Generator()

    def draw(
        make: Callable[..., Tensor], shape: Sequence[int], generator: Any, options: dict[str, Any]
    ) -> Tensor:
        device = options.get("device", generator.device)
        return make(tuple(shape), generator=stream, **{**options, "device": "cpu"}).to(device)

    def restart() -> None:
        stream.manual_seed(derive_seed("alike"))

    monkeypatch.setattr(random_draws, "_keep_own_rows", draw)
    restart()
    return restart


def describe_error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted value."""
    largest = wanted.abs().max().clamp(min=1e-12)
    return float((found.detach().cpu() - wanted.detach().cpu()).abs().max() / largest.cpu())
