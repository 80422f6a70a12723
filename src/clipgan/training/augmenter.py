"""The augmentation of ``train.augmentation``, fixed or adaptive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clipgan.config import Augmentation, AugmentationConfig
from clipgan.training.ada import AdaptiveAugmenter
from clipgan.training.augment import augment_images
from clipgan.training.state import StepLosses


class FixedAugmenter:
    """DiffAugment with fixed policies; without any of them images stay unchanged.

    The methods are those of :class:`~clipgan.training.ada.AdaptiveAugmenter`; there is no state.
    """

    def __init__(self, policies: Sequence[Augmentation]) -> None:
        self.policies = policies

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """See :func:`clipgan.training.augment.augment_images`."""
        return augment_images(images, self.policies, rng)

    def observe(self, real_logits_sign: Tensor) -> StepLosses:
        """No losses: the policies are fixed."""
        return StepLosses((), real_logits_sign.new_empty(0))

    def capture_state(self) -> dict[str, Tensor]:
        """No state."""
        return {}

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """No state."""


Augmenter = FixedAugmenter | AdaptiveAugmenter


def build_augmenter(config: AugmentationConfig, batch_size: int, device: torch.device) -> Augmenter:
    """The augmenter of ``config.kind`` on ``device``; ``batch_size`` is ``train.batch_size``."""
    if config.kind == "ada":
        return AdaptiveAugmenter(config, batch_size, device)
    return FixedAugmenter(config.policies if config.kind == "diffaugment" else ())
