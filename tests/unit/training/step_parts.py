"""Batches for tests of one training step, and what a step changed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.data.batches import Batch
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.state import StepLosses
from clipgan.training.updates import NetworkUpdates


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


def guard_phases(step: AdversarialStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the update of one network changes or differentiates the other."""

    def guard(updates: NetworkUpdates, resting: nn.Module) -> None:
        apply = updates.apply

        def guarded(total: Tensor, terms: dict[str, Tensor], phase: str) -> StepLosses:
            before = copy_state(resting)
            losses = apply(total, terms, phase)
            assert find_changes(resting, before) == set(), phase
            assert all(p.grad is None for p in resting.parameters()), phase
            return losses

        monkeypatch.setattr(updates, "apply", guarded)

    guard(step.generator_updates, step.discriminator)
    guard(step.discriminator_updates, step.generator)
