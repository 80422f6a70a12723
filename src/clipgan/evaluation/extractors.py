"""EfficientNet-lite0 as torch-fidelity extractor: the judge that never trains a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from clipgan.errors import EvaluationError
from clipgan.images import resize, to_unit_range
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite

JUDGE_NAME = "efficientnet-lite0"
JUDGE_LAYER = "pooled-1280"
JUDGE_RESIZE = "bicubic, antialias, to 224 px"
CPU_BATCH = 4
"""More images at once fall out of the CPU's cache: 4 take 19 ms each, 64 take 34."""


class EfficientNetLite0Extractor(FeatureExtractorBase):  # type: ignore[misc]
    """uint8 images -> pooled features of ImageNet-trained EfficientNet-lite0 (Tan and Le 2019).

    Usable by name (``feature_extractor="efficientnet-lite0"``) in torch_fidelity.calculate_metrics.
    """

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = load_efficientnet_lite("lite0").to(memory_format=torch.channels_last)
        self.weights_sha256 = self.network.weights_sha256

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (JUDGE_LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        del metric
        return JUDGE_LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros((1, 3, 224, 224), dtype=torch.uint8)

    def forward(self, images_uint8: Tensor) -> tuple[Tensor]:
        """(N, 3, H, W) uint8, any size -> one tensor (N, 1280) float32."""
        size = CPU_BATCH if images_uint8.device.type == "cpu" else len(images_uint8)
        return (torch.cat([self._extract(part) for part in torch.split(images_uint8, size)]),)

    def _extract(self, images_uint8: Tensor) -> Tensor:
        return self.encode_float(to_unit_range(images_uint8))

    def encode_float(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], any size -> (N, 1280) float32."""
        images = resize(images, self.network.native_side_px)
        features: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return features


def register_judge() -> None:
    """Make the judge known to torch-fidelity by name; a second call does nothing."""
    if JUDGE_NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(JUDGE_NAME, EfficientNetLite0Extractor)


def build_judge(device: torch.device) -> EfficientNetLite0Extractor:
    """The judge on ``device``, frozen.

    Raises:
        ClipError: the package with the weights is not installed or damaged.
    """
    register_judge()
    judge = EfficientNetLite0Extractor(JUDGE_NAME, [JUDGE_LAYER])
    judge.to(device)
    return judge


def extract_features(
    images_uint8: Tensor,
    extractor: FeatureExtractorBase,
    *,
    batch_size: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Features of an image tensor, in its order.

    Args:
        images_uint8: (N, 3, H, W) uint8, N > 0.
        extractor: a torch-fidelity extractor with one layer, on ``device``.
        advance: told the number of images after each batch.

    Returns:
        (N, D) float32 on the CPU.

    Raises:
        EvaluationError: a feature is NaN or infinite.
    """
    parts = []
    with torch.inference_mode():
        for batch in torch.split(images_uint8, batch_size):
            (features,) = extractor(batch.to(device))
            parts.append(features.float().cpu())
            advance(len(batch))
    # A copy made outside inference mode, so that callers may use it in autograd or in place.
    features = torch.cat(parts).clone()
    check_finite(features, "features of the judge")
    return features


def check_finite(features: Tensor, what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        EvaluationError: names ``what`` and the first image concerned.
    """
    bad = ~torch.isfinite(features).flatten(1).all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise EvaluationError(
            f"{what}: NaN or infinity in {int(bad.sum())} of {len(features)} (first: {first}); "
            "look at samples.png, and train with precision fp32 if it shows noise"
        )
