"""Batches for tests of one training step, and what a step changed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.data.batches import Batch
from clipgan.training.random_streams import StepRandom


def draw_batch(num_images: int, side_px: int, dim: int, *, seed: int = 0) -> Batch:
    """Uniform images, random unit features."""
    draws = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.rand(num_images, 3, side_px, side_px, generator=draws) * 2 - 1,
        image_features=F.normalize(torch.randn(num_images, dim, generator=draws), dim=1),
        text_features=F.normalize(torch.randn(num_images, dim, generator=draws), dim=1),
    )


def mirror_batch(batch: Batch) -> Batch:
    """The same images and features, every second image shown mirrored."""
    mirrored = torch.arange(len(batch.images)) % 2 == 1
    images = batch.images.clone()
    images[mirrored] = images[mirrored].flip(-1)
    return Batch(images, batch.image_features, batch.text_features, mirrored)


def seed_step(images_seen: int, *, seed: int = 0) -> StepRandom:
    """The random numbers of the step at ``images_seen``, on the CPU."""
    random = StepRandom(torch.device("cpu"))
    random.seed(seed, 0, 0, images_seen)
    return random


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Its state as it is now."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def find_changes(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names whose values are no longer those of ``before``."""
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}
