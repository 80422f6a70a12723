"""Sampling from LAFITE with truncated and mixed styles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipgan.families.lafite.networks import LafiteGenerator
from clipgan.generation.family_sampling import FamilySampling
from clipgan.generation.styles import StyleChoice


class LafiteSampling(FamilySampling):
    """Styles of every layer, from the latents alone."""

    title = "LAFITE"
    generator: LafiteGenerator

    @property
    def num_layers(self) -> int:
        """2 * log2(resolution_px) - 2."""
        return self.generator.num_layers

    @property
    def latent_average(self) -> Tensor:
        """See :class:`FamilySampling`."""
        return self.generator.latent_average.cpu().clone()

    def compute_in(self, dtype: torch.dtype) -> None:
        """See :class:`FamilySampling`: the blocks of the four highest resolutions, as in training
        at reduced precision."""
        self.generator.compute_dtype = dtype

    def check(self, choice: StyleChoice) -> None:
        """See :class:`FamilySampling`."""
        choice.check(self.num_layers)

    def generate(
        self, latents: Tensor, mixed: Sequence[Tensor], texts: Tensor, choice: StyleChoice
    ) -> Tensor:
        """See :class:`FamilySampling`."""
        styles = compute_styles(self.generator, latents, mixed, choice)
        return self.generator.synthesis(styles, texts, noise="const")


def compute_styles(
    generator: LafiteGenerator, latents: Tensor, mixed: Sequence[Tensor], choice: StyleChoice
) -> Tensor:
    """Styles of every layer, (N, num_layers, style_dim) float32.

    Args:
        latents: (N, latent_dim).
        mixed: of each of ``choice.mixes``, latents of the same shape.
    """
    styles = generator.mapping(latents)
    for mix, other in zip(choice.mixes, mixed, strict=True):
        layers = slice(mix.first, mix.last + 1)
        styles[:, layers] = generator.mapping(other)[:, layers]
    return generator.truncate(styles, choice.truncation, choice.truncation_layers)


SPEC = LafiteSampling
