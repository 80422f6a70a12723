"""A linear generator and a linear discriminator."""

from typing import Any

import torch
from torch import Tensor, nn

from clipgan.models.networks import Discriminator, Generator, NetworkSpec


class ToyGenerator(Generator):
    def __init__(self, *, resolution_px: int, text_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "resolution_px": resolution_px,
            "text_dim": text_dim,
            "latent_dim": latent_dim,
        }
        self.resolution_px, self.text_dim, self.latent_dim = resolution_px, text_dim, latent_dim
        self.pixels = nn.Linear(latent_dim + text_dim, 3 * resolution_px**2)

    def forward(self, latents: Tensor, text_features: Tensor, *, truncation: float = 1.0) -> Tensor:
        pixels: Tensor = self.pixels(torch.cat([latents, text_features], dim=1))
        return pixels.view(len(latents), 3, self.resolution_px, self.resolution_px)


class ToyDiscriminator(Discriminator):
    def __init__(self, *, resolution_px: int, text_dim: int) -> None:
        super().__init__()
        self.architecture = {"resolution_px": resolution_px, "text_dim": text_dim}
        self.logit = nn.Linear(3 * resolution_px**2 + text_dim, 1)

    def forward(self, images: Tensor, text_features: Tensor) -> Tensor:
        logits: Tensor = self.logit(torch.cat([images.flatten(1), text_features], dim=1))
        return logits[:, 0]


SPEC = NetworkSpec(ToyGenerator, ToyDiscriminator)
