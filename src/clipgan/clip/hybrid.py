"""The hybrid vision tower: a ViT whose patch embedding is a frozen convolutional network.

The patches of a ViT may come from the feature map of a CNN (Dosovitskiy et al. 2021, arXiv
2010.11929, section 3.1, "hybrid architecture"). Here the CNN is EfficientNet-lite2 with its
ImageNet weights, with one patch for each place of its map (stride 32), and the rest is open_clip's
``VisionTransformer``. Ten thousand icons are too few to train a ViT from pixels, but enough to
train it on features of a trained network.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from clipgan.images import CLIP_MEAN, CLIP_STD
from clipgan.pretrained.efficientnet_lite import NUM_FEATURES, EfficientNetLite

TRUNK_VARIANT: Final = "lite2"
TRUNK_STRIDE_PX = 32


class MapProjection(nn.Module):
    """Feature maps of the trunk -> patch embeddings by standardisation and a linear map."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_FEATURES))
        self.register_buffer("deviation", torch.ones(NUM_FEATURES))
        self.linear = nn.Conv2d(NUM_FEATURES, width, kernel_size=1, bias=False)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Set mean and deviation to those of the rows of ``features`` (M, 1280) float32."""
        self.mean.copy_(features.mean(dim=0))
        # Nearly constant features carry no information; the floor keeps them small.
        self.deviation.copy_(features.std(dim=0).clamp(min=1e-2))

    def standardize(self, maps: Tensor) -> Tensor:
        """(N, 1280, H, W) -> the same shape with zero mean and unit deviation over the data set."""
        return (maps - self.mean[:, None, None]) / self.deviation[:, None, None]

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 1280, H, W) -> (N, width, H, W)."""
        embeddings: Tensor = self.linear(self.standardize(maps.to(self.linear.weight.dtype)))
        return embeddings


class HybridStem(nn.Module):
    """Takes the place of a ViT's patch convolution; a package provides the trunk's weights."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, trunk: EfficientNetLite, projection: MapProjection) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = projection
        for name, values in (("pixel_mean", CLIP_MEAN), ("pixel_std", CLIP_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """CLIP's normalised pixels (N, 3, S, S) -> patch embeddings (N, width, S/32, S/32)."""
        embeddings: Tensor = self.projection(self.encode_maps(pixels))
        return embeddings

    def encode_maps(self, pixels: Tensor) -> Tensor:
        """CLIP's normalised pixels (N, 3, S, S) -> the trunk's maps (N, 1280, S/32, S/32)."""
        unit = pixels * self.pixel_std + self.pixel_mean
        return self.trunk.encode_maps(unit * 2.0 - 1.0)


def attach_stem(visual: Any, trunk: EfficientNetLite) -> None:
    """Replace the patch convolution of an open_clip ``VisionTransformer`` by a new stem."""
    visual.conv1 = HybridStem(trunk, MapProjection(visual.class_embedding.shape[0]))
