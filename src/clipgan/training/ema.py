"""Exponential moving average of a generator's weights (Karras et al. 2018, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compute_ema_decay(
    images_seen: int, batch_size: int, half_life_kimg: float, ramp_up_fraction: float
) -> float:
    """Share of the old average that one step keeps, in [0, 1).

    The half-life is ``half_life_kimg`` thousand images, but with a ramp-up never more than
    ``ramp_up_fraction`` of the images seen so far, so that a young run forgets its random start.
    """
    half_life_images = half_life_kimg * 1000.0
    if ramp_up_fraction > 0:
        half_life_images = min(half_life_images, images_seen * ramp_up_fraction)
    if half_life_images <= 0:
        return 0.0
    return float(0.5 ** (batch_size / half_life_images))


@torch.no_grad()
def update_ema(average: nn.Module, source: nn.Module, decay: float) -> None:
    """``average`` <- ``decay * average + (1 - decay) * source``; buffers are copied.

    Buffers hold the latent average and fixed noise: they have means of their own or none.
    """
    kept_weights: list[Tensor] = list(average.parameters())
    fresh_weights: list[Tensor] = list(source.parameters())
    torch._foreach_lerp_(kept_weights, fresh_weights, 1.0 - decay)
    for kept, fresh in zip(average.buffers(), source.buffers(), strict=True):
        kept.copy_(fresh)
