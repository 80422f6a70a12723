"""Inception-v3 for FID: torch-fidelity's network and weights, with the same results in less time.

Batch normalisation is folded into the convolutions before it, the layout is channels-last and the
resize is a product with two small matrices. Features agree with torch-fidelity's to 1e-5 of their
range (``python -m bench.evaluation``). Weights are read from torch hub's cache and never
downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    BasicConv2d,
    FeatureExtractorInceptionV3,
)

from clipgan.artifacts import hash_file
from clipgan.errors import EvaluationError

TENSORFLOW_URL: str = URL_INCEPTION_V3
"""TensorFlow's weights of 2015, as torch-fidelity publishes them."""
TORCHVISION_URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
SIDE_PX = 299
NUM_FEATURES = 2048
CPU_BATCH = 16
"""Batches of 16 take 101 ms an image on the CPU; batches of 64 are no faster."""

_TRUNK = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1"),
    *("Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b"),
    *("Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and its hash."""

    path: Path
    sha256: str


def find_hub_weights(url: str) -> WeightsFile | str:
    """Find the file of ``url`` in torch hub's cache, or return one line that says where it belongs.

    Raises:
        EvaluationError: the file is damaged: its hash does not begin as its name ends.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        return f"weights are not at {path}: put {url} there"
    sha256 = hash_file(path)
    expected = path.stem.rpartition("-")[2]
    if not sha256.startswith(expected):
        raise EvaluationError(
            f"{path}: damaged (sha256 begins with {sha256[:8]}, not {expected}): remove it and put "
            f"{url} there"
        )
    return WeightsFile(path, sha256)


class TensorFlowInception(nn.Module):
    """The network of FID (Heusel et al. 2017) with torch-fidelity's weights file, frozen."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            [str(NUM_FEATURES)],
            feature_extractor_weights_path=str(weights),
        )
        for block in network.modules():
            if isinstance(block, BasicConv2d):
                block.conv = fuse_conv_bn_eval(block.conv, block.bn)
                block.bn = nn.Identity()
        self.network = network.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, images_uint8: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 -> features (N, 2048) and logits without bias (N, 1008), float32."""
        return self.encode_pixels(resize_as_tensorflow(images_uint8.float(), SIDE_PX))

    def encode_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, from pixels (N, 3, 299, 299) float in 0..255."""
        x = ((pixels - 128) / 128).contiguous(memory_format=torch.channels_last)
        for name in _TRUNK:
            x = getattr(self.network, name)(x)
        features = torch.flatten(x, 1)
        return features, features @ self.network.fc.weight.T


class TorchvisionInception(nn.Module):
    """The network that GALIP's code measures with: ImageNet weights, and pixels in the wrong range.

    Pixels in [0, 1] are enlarged with aligned corners and then transformed as if they had been
    normalised by ImageNet's mean and deviation (as in pytorch-fid before its first correction).
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        network: Any = inception_v3(weights=None, init_weights=False, transform_input=True)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        network.fc = nn.Identity()
        self.network = network.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, images_uint8: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> features (N, 2048) float32."""
        pixels = F.interpolate(
            images_uint8.float() / 255, size=(SIDE_PX, SIDE_PX), mode="bilinear", align_corners=True
        )
        features: Tensor = self.network(pixels.contiguous(memory_format=torch.channels_last))
        return features


def resize_as_tensorflow(pixels: Tensor, side_px: int) -> Tensor:
    """Resize as TensorFlow 1.x does: bilinear, without antialias, with the corners of pixels
    aligned.

    Args:
        pixels: (N, 3, H, W) float.

    Returns:
        (N, 3, side_px, side_px) float.
    """
    height, width = pixels.shape[-2:]
    rows = _build_interpolation(height, side_px).to(pixels.device)
    columns = _build_interpolation(width, side_px).to(pixels.device)
    return rows @ pixels @ columns.T


@lru_cache(maxsize=8)
def _build_interpolation(size: int, target: int) -> Tensor:
    """(target, size) weights: each row holds the weights of two neighbouring pixels."""
    places = torch.arange(target, dtype=torch.float32) * torch.tensor(size / target)
    low = places.long()
    high = (low + 1).clamp_max(size - 1)
    share = places - low
    weights = torch.zeros(target, size)
    rows = torch.arange(target)
    weights[rows, low] += 1 - share
    weights[rows, high] += share
    return weights
