"""Adaptive discriminator augmentation (ADA; Karras et al. 2020, arXiv 2006.06676).

Every change of the paper's pipeline `bgc` (pixel blits, geometry, colour) is made to an image with
one probability p, which follows the discriminator: it rises while the discriminator is too sure of
the training images and falls otherwise. Up to about p = 0.8 the changes do not leak into what the
generator draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clipgan.config import AugmentationConfig
from clipgan.devices import build_constant
from clipgan.random_draws import draw_integers, draw_normal, draw_uniform
from clipgan.training.image_warp import warp_images
from clipgan.training.state import StepLosses

SHIFT_FRACTION = 0.125
"""Largest whole-pixel shift, and deviation of the fractional one, over the side."""
SCALE_DEVIATION = 0.2
"""Of the base-2 logarithm of isotropic and anisotropic scaling."""
BRIGHTNESS_DEVIATION = 0.2
CONTRAST_DEVIATION = 0.5
"""Of the base-2 logarithm."""
SATURATION_DEVIATION = 1.0
"""Of the base-2 logarithm."""


class AdaptiveAugmenter:
    """The pipeline and its probability.

    Attributes:
        probability: p (), in [0, 1], float64; 0 at the start.
    """

    def __init__(self, config: AugmentationConfig, batch_size: int, device: torch.device) -> None:
        """``batch_size`` counts the images of a step over all processes. All state is kept on
        ``device``, the networks' own, so that no step waits for the GPU."""
        self.config = config
        self.batch_size = batch_size
        self.probability, self._sign_sum, self._num_steps = torch.zeros(
            3, dtype=torch.float64, device=device
        ).unbind()

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """(N, 3, R, R) in [-1, 1] -> the same shape; colours may leave the range.

        Can be differentiated twice.
        """
        sources = draw_geometry(images, self.probability, rng)
        colors = draw_colors(images, self.probability, rng)
        return change_colors(warp_images(images, sources), colors)

    def observe(self, real_logits_sign: Tensor) -> StepLosses:
        """Take in a step's mean sign () of the logits of real images (equation 1: r_t).

        Every ``ada_interval_steps`` steps p moves by the images seen since over ``ada_kimg``
        thousand: up where the mean sign is above ``ada_target``, else down. A step whose logits
        overflowed does not count. Returns p's new value.
        """
        counts = torch.isfinite(real_logits_sign)
        self._sign_sum = self._sign_sum + torch.where(counts, real_logits_sign.double(), 0.0)
        self._num_steps = self._num_steps + counts
        due = self._num_steps == self.config.ada_interval_steps
        excess = self._sign_sum / self._num_steps - self.config.ada_target
        change = self.batch_size * self._num_steps / (self.config.ada_kimg * 1000.0)
        moved = (self.probability + torch.where(excess > 0.0, change, -change)).clamp(0.0, 1.0)
        self.probability = torch.where(due, moved, self.probability)
        self._sign_sum = torch.where(due, 0.0, self._sign_sum)
        self._num_steps = torch.where(due, 0.0, self._num_steps)
        return StepLosses(["augmentation_probability"], self.probability.view(1))

    def capture_state(self) -> dict[str, Tensor]:
        """Probability and open interval, float64."""
        return {
            "probability": self.probability,
            "sign_sum": self._sign_sum,
            "num_steps": self._num_steps,
        }

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of :meth:`capture_state`."""
        device = self.probability.device
        self.probability = tensors["probability"].to(device)
        self._sign_sum = tensors["sign_sum"].to(device)
        self._num_steps = tensors["num_steps"].to(device)


class _Draws:
    """One number for each image, changed with a probability and neutral otherwise."""

    def __init__(self, images: Tensor, rng: torch.Generator) -> None:
        self.shape = (len(images),)
        self.options = {"device": images.device}
        self.rng = rng

    def uniform(self, probability: Tensor, low: float, high: float) -> Tensor:
        drawn = draw_uniform(self.shape, self.rng, **self.options)
        return self._apply(low + drawn * (high - low), probability, 0.0)

    def normal(self, probability: Tensor, deviation: float) -> Tensor:
        drawn = draw_normal(self.shape, self.rng, **self.options)
        return self._apply(drawn * deviation, probability, 0.0)

    def log_normal(self, probability: Tensor, deviation: float) -> Tensor:
        """Powers of two with normal exponents."""
        drawn = draw_normal(self.shape, self.rng, **self.options)
        return self._apply((drawn * deviation).exp2(), probability, 1.0)

    def integer(self, probability: Tensor, high: int) -> Tensor:
        """0..high, as float."""
        drawn = draw_integers(0, high, self.shape, self.rng, **self.options).float()
        return self._apply(drawn, probability, 0.0)

    def _apply(self, values: Tensor, probability: Tensor, neutral: float) -> Tensor:
        chance = draw_uniform(self.shape, self.rng, **self.options)
        return torch.where(chance < probability, values, neutral)


def draw_geometry(images: Tensor, probability: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 3, 3) maps for :func:`~clipgan.training.image_warp.warp_images`, one an image.

    In order: flip, quarter turns, whole-pixel shift; scaling, rotation, anisotropic scaling, a
    second rotation, fractional shift. The two rotations together happen with ``probability`` ().
    """
    draws = _Draws(images, rng)
    height, width = images.shape[2:]
    sides = (width, height)
    rotating = 1.0 - (1.0 - probability).sqrt()

    mirror = 1.0 - 2.0 * draws.integer(probability, 1)
    sources = _scale(mirror, torch.ones_like(mirror))
    sources = sources @ _rotate(draws.integer(probability, 3) * (math.pi / 2))
    shift = [draws.uniform(probability, -SHIFT_FRACTION, SHIFT_FRACTION) * side for side in sides]
    sources = sources @ _translate(shift[0].round(), shift[1].round())

    size = draws.log_normal(probability, SCALE_DEVIATION)
    sources = sources @ _scale(size, size)
    sources = sources @ _rotate(draws.uniform(rotating, -math.pi, math.pi))
    stretch = draws.log_normal(probability, SCALE_DEVIATION)
    sources = sources @ _scale(stretch, 1.0 / stretch)
    sources = sources @ _rotate(draws.uniform(rotating, -math.pi, math.pi))
    shift = [draws.normal(probability, SHIFT_FRACTION) * side for side in sides]
    return sources @ _translate(shift[0], shift[1])


def draw_colors(images: Tensor, probability: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 4, 4) maps of homogeneous colours (r, g, b, 1), one an image.

    In order: brightness, contrast, inversion of luma, hue, saturation.
    """
    draws = _Draws(images, rng)
    identity = torch.eye(4, device=images.device)
    # Grey: the axis that luma lies on, that hue turns about and that saturation leaves.
    grey = build_constant((1.0, 1.0, 1.0, 0.0), images.device) / math.sqrt(3.0)
    luma = torch.outer(grey, grey)

    brightness = draws.normal(probability, BRIGHTNESS_DEVIATION)
    colors = identity.repeat(len(images), 1, 1)
    colors[:, :3, 3] = brightness[:, None]
    contrast = draws.log_normal(probability, CONTRAST_DEVIATION)
    colors = _diagonal(contrast, contrast, contrast, torch.ones_like(contrast)) @ colors
    inverted = draws.integer(probability, 1)[:, None, None]
    colors = (identity - 2.0 * luma * inverted) @ colors
    hue = draws.uniform(probability, -math.pi, math.pi)
    colors = _turn_about_grey(hue) @ colors
    saturation = draws.log_normal(probability, SATURATION_DEVIATION)[:, None, None]
    return (luma + (identity - luma) * saturation) @ colors


def change_colors(images: Tensor, colors: Tensor) -> Tensor:
    """Apply (N, 4, 4) colour maps to (N, 3, H, W) images."""
    changed = colors[:, :3, :3] @ images.flatten(2) + colors[:, :3, 3:]
    return changed.view(images.shape)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return _diagonal(x, y, torch.ones_like(x))


def _diagonal(*entries: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack(entries, -1))


def _translate(x: Tensor, y: Tensor) -> Tensor:
    matrices = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
    matrices[:, 0, 2], matrices[:, 1, 2] = x, y
    return matrices


def _rotate(angle: Tensor) -> Tensor:
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), angle * 0 + 1
    rows = [cosine, -sine, zero, sine, cosine, zero, zero, zero, one]
    return torch.stack(rows, -1).view(-1, 3, 3)


def _turn_about_grey(angle: Tensor) -> Tensor:
    """Rotation of colours about the grey axis (Rodrigues), (N, 4, 4)."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    ones = torch.ones(3, 3, device=angle.device) / 3.0
    turn = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))
    across = build_constant(turn, angle.device) / math.sqrt(3.0)
    matrices = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    identity = torch.eye(3, device=angle.device)
    matrices[:, :3, :3] = identity * cosine + across * sine + ones * (1.0 - cosine)
    return matrices
