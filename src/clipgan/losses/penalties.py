"""Gradient penalties: R1 of the discriminator and path length of the generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipgan.random_draws import draw_normal


def compute_r1_penalty(
    real_logits: Tensor, images: Tensor, *, scale: float | Tensor = 1.0
) -> Tensor:
    """Compute squared gradient norms of the logits at real images (Mescheder et al. 2018).

    Source: arXiv 1801.04406.

    The same at generated images is R2.

    Args:
        real_logits: (N,), each computed from its own image of ``images``.
        images: (N, 3, R, R), requiring gradients.
        scale: factor on the gradient in the backward pass, so that fp16 does not lose small
            numbers; the result is divided by it.

    Returns:
        (N,) float32, differentiable; the loss is ``gamma / 2`` times its mean.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum() * scale, images, create_graph=True)
    return (gradient.float() / scale).square().sum((1, 2, 3))


def compute_path_lengths(
    images: Tensor, styles: Tensor, noise: Tensor, *, scale: float | Tensor = 1.0
) -> Tensor:
    """Compute how far images move with the styles in a random direction (StyleGAN2, equation 4).

    Args:
        images: (N, 3, H, W), synthesised from ``styles``.
        styles: (N, slots, D), part of the images' graph.
        noise: (N, 3, H, W) standard normal; divided by sqrt(H * W) here.
        scale: as for :func:`compute_r1_penalty`.

    Returns:
        (N,): the root of the mean over slots of the squared gradient norms; differentiable.
    """
    direction = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * direction).sum() * scale, styles, create_graph=True)
    return (gradient / scale).square().sum(2).mean(1).sqrt()


class PathLengthPenalty(nn.Module):
    """Squared deviation of path lengths from their running mean.

    The running mean is updated before it is used, and the gradient passes through the update. It is
    a buffer, which the training state must include.

    Args:
        decay: weight of a batch's mean in the running mean, 0.01 in StyleGAN2.
        average: averages a number over the processes; None: there is one process.
    """

    mean_length: Tensor

    def __init__(self, decay: float, average: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.decay = decay
        self.average = average
        self.register_buffer("mean_length", torch.zeros(()))

    def forward(
        self,
        images: Tensor,
        styles: Tensor,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        """(N,) penalties, differentiable; the loss is the weight times their mean.

        Args:
            images: (N, 3, H, W), synthesised from ``styles``.
            styles: (N, slots, D), the generator's mapping of latents.
            noise: (N, 3, H, W) standard normal; None: drawn with ``rng``.
            scale: as for :func:`compute_r1_penalty`.
        """
        if noise is None:
            noise = draw_normal(images.shape, rng, device=images.device)
        lengths = compute_path_lengths(images, styles, noise, scale=scale)
        fresh = lengths.mean()
        if self.average is not None:
            fresh = self.average(fresh)
        mean = self.mean_length.lerp(fresh, self.decay)
        self.mean_length.copy_(mean.detach())
        return (lengths - mean).square()
