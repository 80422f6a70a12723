"""The augmentation of ``train.augmentation``, fixed or adaptive, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from clipgan.config import Augmentation, AugmentationConfig
from clipgan.training.ada import AdaptiveAugmenter
from clipgan.training.augment import augment_images
from clipgan.training.state import StepLosses


class Augmenter(Protocol):
    """Changes all images that the discriminator sees, real and generated."""

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """(N, 3, R, R) in [-1, 1] -> the same shape; can be differentiated twice."""

    def observe(self, real_logits_sign: Tensor) -> StepLosses:
        """Take in the mean sign () of the logits of a step's real images; gives what to report."""

    def capture_state(self) -> dict[str, Tensor]:
        """Tensors that the next step depends on; empty where there are none."""

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of :meth:`capture_state`."""


class FixedAugmenter:
    """DiffAugment with fixed policies; none of them: images pass unchanged."""

    def __init__(self, policies: Sequence[Augmentation]) -> None:
        self.policies = policies

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """See :func:`clipgan.training.augment.augment_images`."""
        return augment_images(images, self.policies, rng)

    def observe(self, real_logits_sign: Tensor) -> StepLosses:
        """Nothing is learned from it."""
        return StepLosses((), real_logits_sign.new_empty(0))

    def capture_state(self) -> dict[str, Tensor]:
        """Nothing changes."""
        return {}

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing was kept."""


def build_augmenter(config: AugmentationConfig, batch_size: int, device: torch.device) -> Augmenter:
    """The augmenter of ``config.kind`` on ``device``; ``batch_size`` is ``train.batch_size``."""
    if config.kind == "ada":
        return AdaptiveAugmenter(config, batch_size, device)
    return FixedAugmenter(config.policies if config.kind == "diffaugment" else ())
