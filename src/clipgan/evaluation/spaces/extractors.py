"""EfficientNet-lite0, the feature extractor that no generator here is trained against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipgan.images import resize, to_unit_range
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite

EXTRACTOR_NAME = "efficientnet-lite0"
EXTRACTOR_LAYER = "pooled-1280"
EXTRACTOR_RESIZE = "bicubic, antialias, to 224 px"
CPU_BATCH = 4
"""Larger batches do not fit the CPU's cache: an image takes 19 ms in a batch of 4, 34 ms of 64."""


class EfficientNetLite0Extractor(nn.Module):
    """uint8 images -> pooled features of ImageNet-trained EfficientNet-lite0 (Tan and Le 2019).

    Raises:
        ClipError: the package with the weights is not installed or is damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = load_efficientnet_lite("lite0")

    def forward(self, images_uint8: Tensor) -> Tensor:
        """(N, 3, H, W) uint8, any size -> (N, 1280) float32."""
        size = CPU_BATCH if images_uint8.device.type == "cpu" else len(images_uint8)
        parts = torch.split(images_uint8, size)
        return torch.cat([self.encode_float(to_unit_range(part)) for part in parts])

    def encode_float(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], any size -> (N, 1280) float32."""
        images = resize(images, self.network.native_side_px)
        features: Tensor = self.network(images)
        return features
