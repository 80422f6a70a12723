"""Choices on the way from latents to the styles of every layer: truncation and mixing.

They do not depend on the text, because LAFITE's mapping network takes the latent alone. A generator
without styles has the truncation of latents only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import ConfigError

_MIX = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


@dataclass(frozen=True)
class StyleMix:
    """Layers ``first`` to ``last`` (from 0, both included) take the styles of ``seed``."""

    seed: int
    first: int
    last: int


@dataclass(frozen=True)
class StyleChoice:
    """Everything that decides an image besides its text and the seed of its latent.

    Attributes:
        truncation: psi in [0, 1] for w; 1 does not change the styles, 0 makes them their average,
            the generator's most ordinary image of the text (Karras et al. 2019, section B).
        truncation_layers: number of layers to truncate, of which the first decide the layout rather
            than the colours; None: all.
        latent_truncation: largest magnitude of a latent's elements, whose normal distribution is
            cut off there (Brock et al. 2019, section 3.1); None: not cut off. LAFITE's mapping
            network uses the latent's direction alone, so the effect there is small.
        mixes: applied in order.
    """

    truncation: float = 1.0
    truncation_layers: int | None = None
    latent_truncation: float | None = None
    mixes: tuple[StyleMix, ...] = ()

    def check(self, num_layers: int | None = None) -> None:
        """Refuse what is out of range; ``num_layers`` is the generator's number, if known.

        Raises:
            ConfigError: names the value and the range.
        """
        if not 0.0 <= self.truncation <= 1.0:
            raise ConfigError(f"truncation = {self.truncation}: use a number from 0 to 1")
        layers = self.truncation_layers
        if layers is not None and not 0 <= layers <= (num_layers or layers):
            upper = "" if num_layers is None else f" to {num_layers}, the generator's layers"
            raise ConfigError(f"truncation_layers = {layers}: use a whole number from 0{upper}")
        limit = self.latent_truncation
        if limit is not None and not 0.0 < limit < math.inf:
            raise ConfigError(f"latent_truncation = {limit}: use a number above 0, such as 1.5")
        for mix in self.mixes:
            _check_mix(mix, num_layers)


def parse_style_mixes(texts: Sequence[str]) -> tuple[StyleMix, ...]:
    """Parse ``SEED:FIRST-LAST`` or ``SEED:LAYER``, such as ``7:0-3``.

    Raises:
        ConfigError: names the text that cannot be read.
    """
    mixes = []
    for text in texts:
        match = _MIX.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"mix = {text!r}: write SEED:FIRST-LAST, such as 7:0-3 for the first four layers"
            )
        seed, first, last = match.groups()
        mixes.append(StyleMix(int(seed), int(first), int(last or first)))
    return tuple(mixes)


def draw_latents(
    seed: int, num_images: int, latent_dim: int, truncation: float | None = None
) -> Tensor:
    """Draw (num_images, latent_dim) float32 standard normal; row j depends on (seed, j) alone.

    ``truncation`` t cuts the distribution off at +-t. Each number keeps its quantile, so the latent
    of a seed moves smoothly to a more ordinary one.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
        .standard_normal(latent_dim, dtype=np.float32)
        for index in range(num_images)
    ]  # fmt: skip
    latents = torch.from_numpy(np.stack(rows))
    return latents if truncation is None else truncate_latents(latents, truncation)


def truncate_latents(latents: Tensor, limit: float) -> Tensor:
    """Map normal numbers to the same quantiles of a normal distribution cut off at ``+-limit``.

    ``Phi^-1(Phi(-t) + Phi(z) * (Phi(t) - Phi(-t)))`` with Phi the normal distribution function,
    computed in float64.
    """
    bound = torch.tensor(limit, dtype=torch.float64)
    low, high = torch.special.ndtr(-bound), torch.special.ndtr(bound)
    # Phi is precise in the lower half only; the upper half is its mirror image.
    below = torch.special.ndtr(-latents.double().abs())
    cut = torch.special.ndtri(low + below * (high - low)).clamp(-limit, 0.0)
    return torch.where(latents > 0, -cut, cut).to(latents.dtype)


def _check_mix(mix: StyleMix, num_layers: int | None) -> None:
    text = f"mix = {mix.seed}:{mix.first}-{mix.last}"
    if not 0 <= mix.seed < 2**63:
        raise ConfigError(f"{text}: its seed is no whole number from 0 to 2^63 - 1")
    if not 0 <= mix.first <= mix.last:
        raise ConfigError(f"{text}: its layers run backwards; write FIRST-LAST from 0 up")
    if num_layers is not None and mix.last >= num_layers:
        raise ConfigError(f"{text}: the generator's layers are 0 to {num_layers - 1}")
