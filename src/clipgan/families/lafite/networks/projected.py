"""A projected discriminator: small heads on maps of a frozen network (Sauer et al., arXiv
2111.01007; StyleGAN-T, arXiv 2301.09515, section 3.2).

The frozen network is the training's CLIP, which looks at the fakes for the contrastive term anyway.
It is no part of this module, so no weight of it is stored, moved or averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from clipgan.errors import ConfigError
from clipgan.models.networks import Discriminator

LEAKY_SLOPE = 0.2


class ProjectionHead(nn.Module):
    """Maps of one depth and a text -> one logit a place.

    ``1x1 -> residual 3x3``, then the inner product with a linear map of the text: ``<f(x), W h +
    b> / sqrt(C)``, in which ``b`` is what is said of an image whatever its text. All weights are
    spectrally normalised (Miyato et al., arXiv 1802.05957); they are computed in float32.
    """

    def __init__(self, map_channels: int, channels: int, text_dim: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(map_channels, channels, 1)
        self.residual = nn.Conv2d(channels, channels, 3, padding=1)
        self.text = nn.Linear(text_dim, channels)
        for layer in (self.enter, self.residual, self.text):
            spectral_norm(layer)
        self.text_gain = math.sqrt(text_dim)
        self.logit_gain = 1.0 / math.sqrt(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, map_channels, H, W) -> (N, channels, H, W), both of the same dtype."""
        hidden = F.leaky_relu(_convolve(self.enter, maps), LEAKY_SLOPE)
        return hidden + F.leaky_relu(_convolve(self.residual, hidden), LEAKY_SLOPE)

    def compute_logits(self, features: Tensor, text_features: Tensor) -> Tensor:
        """(N, channels, H, W) and unit (N, text_dim) -> (N, H * W) float32."""
        # A unit vector's numbers shrink with its length: back to a mean square of 1.
        texts: Tensor = self.text(text_features * self.text_gain) * self.logit_gain
        return torch.einsum("nchw,nc->nhw", features.float(), texts).flatten(1)


class ProjectedDiscriminator(Discriminator):
    """A head for each of several depths; ``compute_dtype`` is the format of its convolutions.

    Args:
        text_dim: width of the CLIP features.
        channels: of every head.
        map_channels: of the maps it is shown, one number a depth.
    """

    def __init__(self, *, text_dim: int, channels: int, map_channels: Sequence[int]) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "kind": "projected",
            "text_dim": text_dim,
            "channels": channels,
            "map_channels": list(map_channels),
        }
        if not map_channels:
            raise ConfigError("map_channels is empty: a projected discriminator needs a depth")
        self.compute_dtype = torch.float32
        self.heads = nn.ModuleList(
            ProjectionHead(number, channels, text_dim) for number in map_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C_k, H_k, W_k) of growing depth -> features (N, channels, H_k, W_k).

        Maps come as they are: their size says how strong the contrasts of an image are.
        """
        pairs = zip(self._list_heads(), maps, strict=True)
        return [head(each.to(self.compute_dtype)) for head, each in pairs]

    def compute_logits(self, features: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """What :meth:`forward` gives, and unit (N, text_dim) -> a logit a place, (N, sum of
        H_k * W_k) float32, depth after depth."""
        pairs = zip(self._list_heads(), features, strict=True)
        return torch.cat([head.compute_logits(each, text_features) for head, each in pairs], 1)

    def _list_heads(self) -> list[ProjectionHead]:
        return [head for head in self.heads if isinstance(head, ProjectionHead)]


def _convolve(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(maps.dtype)
    return F.conv2d(maps, layer.weight.to(maps.dtype), bias, padding=layer.padding)
