"""torch-fidelity's values, as its users get them."""

from __future__ import annotations

from typing import Any

import torch_fidelity
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from clipgan.evaluation.metrics.kernel_distances import build_cubic_kernel
from clipgan.evaluation.spaces.extractors import EXTRACTOR_NAME, EfficientNetLite0Extractor

ROUNDING = 1e-6
"""Of a sum in float32, relative to its terms: about ten times what one rounding leaves."""


class RegisteredExtractor(FeatureExtractorBase):  # type: ignore[misc]
    """Ours, as torch-fidelity finds it by name."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.extractor = EfficientNetLite0Extractor()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("pooled",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        del metric
        return "pooled"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images_uint8: Tensor) -> tuple[Tensor]:
        return (self.extractor(images_uint8),)


def measure_by_fidelity(
    generated: Any, reference: Any, num_images: int, **options: Any
) -> dict[str, float]:
    """Distances of tiny sets on the CPU in EfficientNet-lite0's space; KID of all images at once.

    Args:
        generated, reference: folders or data sets of as many images.
        num_images: of each.
        options: of `torch_fidelity.calculate_metrics`.
    """
    if EXTRACTOR_NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(EXTRACTOR_NAME, RegisteredExtractor)
    values: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=generated,
        input2=reference,
        feature_extractor=EXTRACTOR_NAME,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=num_images,
        kid_subsets=1,
        prc_neighborhood=2,
        batch_size=5,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **options,
    )
    return values


def find_tolerances(generated: Tensor, reference: Tensor) -> dict[str, float]:
    """Absolute, by metric: how far rounding in float32 moves it.

    Frechet distance and KID are small differences of large terms, so :data:`ROUNDING` is of the
    terms, whatever is left of them. Shares are counts and have none of their own.

    Args:
        generated, reference: features, (N, D) and (M, D).
    """
    generated, reference = generated.double(), reference.double()
    kernel = build_cubic_kernel(generated.shape[1])
    kernels = [kernel(generated, generated), kernel(reference, reference)]
    kernels += 2 * [kernel(generated, reference)]
    squares = [features.square().sum(1).mean() for features in (generated, reference)]
    return {
        "fd": ROUNDING * 2 * float(sum(squares)),
        "kid": ROUNDING * float(sum(values.mean() for values in kernels)),
        "precision": ROUNDING,
        "recall": ROUNDING,
    }
