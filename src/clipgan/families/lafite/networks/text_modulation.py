"""How text enters a layer of LAFITE's generator (Zhou et al., arXiv 2111.13792, section 3.2).

Each modulated layer has a style vector w of the latents and turns it into one factor a channel,
u. Four forms exist; h is the text feature, c = pi(h) a two-layer network of the layer's own, A an
affine map with bias 1:

- concatenation of w (the released code): ``u = A([c, w])``
- concatenation of s (the paper): ``u = A([c, s])``, ``s = A'(w)``
- scale and shift (the released code above a resolution): ``u = S(h) * A(w) + B(h)``
- none (plain StyleGAN2): ``u = A(w)``

Every form has a method ``modulate(style, text_features, codes)``: (N, style_dim) and
(N, text_dim) -> u (N, channels), all float32. ``codes`` gives the codes c (N, text_hidden_dim) of
the layers that concatenate, in the order of the layers; the other forms take none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.families.lafite.config import StyleInput
from clipgan.models.stylegan2 import EqualizedLinear, LayerwiseLinear


class TextPath(nn.Module):
    """Text feature -> one code for each layer that concatenates, each with its own weights."""

    def __init__(
        self, num_layers: int, text_dim: int, hidden_dim: int, learning_rate_multiplier: float
    ) -> None:
        super().__init__()
        middle = (text_dim + hidden_dim) // 2
        self.first = LayerwiseLinear(
            num_layers, text_dim, middle, learning_rate_multiplier=learning_rate_multiplier
        )
        self.second = LayerwiseLinear(
            num_layers, middle, hidden_dim, learning_rate_multiplier=learning_rate_multiplier
        )

    def forward(self, text_features: Tensor) -> Tensor:
        """(N, text_dim) -> (layers, N, hidden_dim)."""
        hidden: Tensor = self.second(self.first(text_features))
        return hidden


class LatentConcatenation(EqualizedLinear):
    """``u = A([c, w])``."""

    def __init__(self, style_dim: int, hidden_dim: int, channels: int) -> None:
        super().__init__(hidden_dim + style_dim, channels, bias=1.0)

    def modulate(self, style: Tensor, text_features: Tensor, codes: Iterator[Tensor]) -> Tensor:
        """u of one layer; see the module."""
        del text_features
        factors: Tensor = self(torch.cat([next(codes), style], 1))
        return factors


class AffineConcatenation(nn.Module):
    """``u = A([c, s])`` with ``s = A'(w)``, one number a channel."""

    def __init__(self, style_dim: int, hidden_dim: int, channels: int) -> None:
        super().__init__()
        self.style_affine = EqualizedLinear(style_dim, channels, bias=1.0)
        self.affine = EqualizedLinear(hidden_dim + channels, channels, bias=1.0)

    def modulate(self, style: Tensor, text_features: Tensor, codes: Iterator[Tensor]) -> Tensor:
        """u of one layer; see the module."""
        del text_features
        joined = torch.cat([next(codes), self.style_affine(style)], 1)
        factors: Tensor = self.affine(joined)
        return factors


class TextScaleShift(nn.Module):
    """``u = S(h) * A(w) + B(h)``; S and B are three-layer networks, S starts around 1, B around 0.

    Args:
        learning_rate_multiplier: of the first two layers of S and B.
    """

    def __init__(
        self,
        style_dim: int,
        text_dim: int,
        hidden_dim: int,
        channels: int,
        *,
        learning_rate_multiplier: float,
    ) -> None:
        super().__init__()
        middle, rate = (text_dim + hidden_dim) // 2, learning_rate_multiplier

        def network(bias: float) -> nn.Sequential:
            return nn.Sequential(
                EqualizedLinear(text_dim, middle, learning_rate_multiplier=rate, activate=True),
                EqualizedLinear(middle, hidden_dim, learning_rate_multiplier=rate, activate=True),
                EqualizedLinear(hidden_dim, channels, bias=bias),
            )

        self.style_affine = EqualizedLinear(style_dim, channels, bias=1.0)
        self.scale = network(1.0)
        self.shift = network(0.0)

    def modulate(self, style: Tensor, text_features: Tensor, codes: Iterator[Tensor]) -> Tensor:
        """u of one layer; see the module."""
        del codes
        factors = self.scale(text_features) * self.style_affine(style)
        shifted: Tensor = factors + self.shift(text_features)
        return shifted


class TextFreeModulation(EqualizedLinear):
    """``u = A(w)``."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__(style_dim, channels, bias=1.0)

    def modulate(self, style: Tensor, text_features: Tensor, codes: Iterator[Tensor]) -> Tensor:
        """u of one layer; see the module."""
        del text_features, codes
        factors: Tensor = self(style)
        return factors


Modulation = LatentConcatenation | AffineConcatenation | TextScaleShift | TextFreeModulation


@dataclass(frozen=True, kw_only=True)
class ModulationPlan:
    """Which form each block uses; the fields are keyword arguments of the generator.

    Raises:
        ConfigError: ``style_input`` is unknown.
    """

    text_dim: int
    style_dim: int
    text_hidden_dim: int
    text_learning_rate_multiplier: float
    style_input: StyleInput
    text_max_px: int
    text_concat_max_px: int

    def __post_init__(self) -> None:
        if self.style_input not in get_args(StyleInput):
            raise ConfigError(f"style_input = {self.style_input!r}: use latent or affine")

    def concatenates(self, side: int) -> bool:
        """Whether the layers of the block of ``side`` take a code of the text path each."""
        return side <= min(self.text_max_px, self.text_concat_max_px)

    def build_modulation(self, side: int, channels: int) -> Modulation:
        """The map of one layer with ``channels`` inputs in the block of ``side``."""
        if side > self.text_max_px:
            return TextFreeModulation(self.style_dim, channels)
        if not self.concatenates(side):
            return TextScaleShift(
                self.style_dim,
                self.text_dim,
                self.text_hidden_dim,
                channels,
                learning_rate_multiplier=self.text_learning_rate_multiplier,
            )
        if self.style_input == "affine":
            return AffineConcatenation(self.style_dim, self.text_hidden_dim, channels)
        return LatentConcatenation(self.style_dim, self.text_hidden_dim, channels)

    def build_text_path(self, sides: list[int]) -> TextPath | None:
        """The codes of all layers that concatenate; None where there is none."""
        # Two modulated layers at 4 px, three at every other side.
        num_layers = sum(2 if side == 4 else 3 for side in sides if self.concatenates(side))
        if num_layers == 0:
            return None
        return TextPath(
            num_layers, self.text_dim, self.text_hidden_dim, self.text_learning_rate_multiplier
        )
