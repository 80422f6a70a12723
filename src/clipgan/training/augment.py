"""Differentiable augmentation for data-efficient GANs (Zhao et al. 2020, DiffAugment).

The same kinds of random change are applied to real and to generated images before the
discriminator, with gradients passing through, so that it cannot learn a small data set by heart and
the generator does not learn the changes. Every operation can be differentiated twice (R1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import Augmentation, AugmentationConfig
from clipgan.random_draws import draw_integers, draw_uniform
from clipgan.training.ada import AdaptiveAugmenter
from clipgan.training.state import StepLosses

TRANSLATION_FRACTION = 1 / 8
"""Largest shift over the side (Zhao et al. 2020, section 3.2)."""
CUTOUT_FRACTION = 1 / 2
"""Side of the masked square over the image's side (Zhao et al. 2020, section 3.2)."""


class FixedAugmenter:
    """DiffAugment with fixed policies; without any of them images stay unchanged.

    The methods are those of :class:`~clipgan.training.ada.AdaptiveAugmenter`; there is no state.
    """

    def __init__(self, policies: Sequence[Augmentation]) -> None:
        self.policies = policies

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """See :func:`augment_images`."""
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


def augment_images(images: Tensor, kinds: Sequence[Augmentation], rng: torch.Generator) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> the same shape, every image changed by draws of its own.

    ``color`` scales leave [-1, 1] at the edges, as in the paper; ``translation`` and ``cutout``
    fill with zeros.
    """
    if "color" in kinds:
        images = _change_color(images, rng)
    if "translation" in kinds:
        images = _translate(images, rng)
    if "cutout" in kinds:
        images = _cut_out(images, rng)
    return images


def _draw_uniform(images: Tensor, rng: torch.Generator) -> Tensor:
    shape = (images.shape[0], 1, 1, 1)
    return draw_uniform(shape, rng, device=images.device, dtype=images.dtype)


def _change_color(images: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness +-0.5, saturation times 0..2, contrast times 0.5..1.5."""
    images = images + (_draw_uniform(images, rng) - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, _draw_uniform(images, rng) * 2.0)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _draw_uniform(images, rng) + 0.5)


def _draw_integers(images: Tensor, low: int, high: int, rng: torch.Generator) -> Tensor:
    """(N, 1) integers, uniform in ``low..high``, both included."""
    shape = (images.shape[0], 1)
    return draw_integers(low, high, shape, rng, device=images.device)


def _translate(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side along both axes."""
    height, width = images.shape[-2:]
    most_y, most_x = round(height * TRANSLATION_FRACTION), round(width * TRANSLATION_FRACTION)
    rows = torch.arange(height, device=images.device) + _draw_integers(images, 0, 2 * most_y, rng)
    columns = torch.arange(width, device=images.device) + _draw_integers(images, 0, 2 * most_x, rng)
    padded = F.pad(images, (most_x, most_x, most_y, most_y))
    picked = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
    index = picked[:, None, :].expand(-1, images.shape[1], -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def _cut_out(images: Tensor, rng: torch.Generator) -> Tensor:
    """Zeros in a square of half the side, centred anywhere in the image."""
    height, width = images.shape[-2:]
    keep_row = _outside_band(images, height, rng)
    keep_column = _outside_band(images, width, rng)
    keep = keep_row[:, None, :, None] | keep_column[:, None, None, :]
    return images * keep


def _outside_band(images: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """(N, side) truth values: not in a band of half the side around a random centre."""
    band = round(side * CUTOUT_FRACTION)
    start = _draw_integers(images, 0, side - 1 + (1 - band % 2), rng) - band // 2
    positions = torch.arange(side, device=images.device)
    return (positions < start) | (positions >= start + band)
