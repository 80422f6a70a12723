"""The interface of every family's networks, which bundles and samplers use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Latents and text features -> images.

    Attributes:
        architecture: the arguments of its constructor, JSON values.
        resolution_px: side of its images.
        latent_dim, text_dim: widths of its inputs.
        takes_raw_texts: whether it was trained on text features of any length, not of unit length.
    """

    architecture: dict[str, Any]
    resolution_px: int
    latent_dim: int
    text_dim: int
    takes_raw_texts = False

    def attach_clip(self, clip: Any) -> None:
        """Attach the ``ClipEncoder`` that it draws through, on the encoder's device; most need
        none.

        Raises:
            ClipError, ConfigError: the CLIP does not fit.
        """

    @abstractmethod
    def forward(self, latents: Tensor, text_features: Tensor, *, truncation: float = 1.0) -> Tensor:
        """(N, latent_dim) and (N, text_dim) -> images (N, 3, R, R) float32, not clamped.

        The same input makes the same images, because noise, if there is any, is the stored noise.

        Args:
            truncation: psi of the styles; 1 does not change them.

        Raises:
            ConfigError: the truncation is not 1 and the generator has no styles.
        """


class Discriminator(nn.Module):
    """Tells real from generated images; ``architecture`` holds its constructor's arguments."""

    architecture: dict[str, Any]


@dataclass(frozen=True)
class NetworkSpec:
    """A family's part ``networks``: a stored architecture -> the network that its weights fit."""

    generator: Callable[..., Generator]
    discriminator: Callable[..., Discriminator]
