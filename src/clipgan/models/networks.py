"""What every family's networks have in common, so that bundles and samplers need not ask whose
they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Latents and text features -> images.

    Attributes:
        architecture: the arguments that build it again, JSON values.
        resolution_px: side of its images.
        latent_dim, text_dim: widths of its inputs.
        takes_raw_texts: it was trained on text features as CLIP gives them, of any length, and not
            on unit ones.
    """

    architecture: dict[str, Any]
    resolution_px: int
    latent_dim: int
    text_dim: int
    takes_raw_texts = False

    def attach_clip(self, clip: Any) -> None:
        """Lend it the ``ClipEncoder`` that it draws through, on its own device; most need none.

        Raises:
            ClipError, ConfigError: the CLIP does not fit.
        """

    @abstractmethod
    def forward(self, latents: Tensor, text_features: Tensor, *, truncation: float = 1.0) -> Tensor:
        """(N, latent_dim) and (N, text_dim) -> images (N, 3, R, R) float32, not clamped.

        The same input gives the same images: noise, where there is such, is the stored one.

        Args:
            truncation: psi of the styles; 1 leaves them alone.

        Raises:
            ConfigError: another truncation is asked of a generator without styles.
        """


class Discriminator(nn.Module):
    """What judges images; ``architecture`` holds the arguments that build it again."""

    architecture: dict[str, Any]


@dataclass(frozen=True)
class NetworkSpec:
    """A family's part ``networks``: the classes that bundles and checkpoints are read into."""

    generator: type[Generator]
    discriminator: type[Discriminator]
