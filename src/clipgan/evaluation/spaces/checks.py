"""Refusal of features that no metric can be computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from clipgan.errors import EvaluationError

_ROUNDING = 1e-4
"""Relative: how far float32 features of one image differ between batches of other sizes, which
processors sum in other orders. Images that differ to the eye are hundreds of times farther apart.
"""


def check_features(features: Tensor, what: str) -> None:
    """Refuse features that no distance can be computed from.

    Args:
        features: (N, D) float.

    Raises:
        EvaluationError: fewer than two images, NaN, or all images the same.
    """
    if len(features) < 2:
        raise EvaluationError(f"{what}: {len(features)} images; at least 2 are needed")
    check_finite(features, what)
    first = features[:1]
    if (features - first).flatten(1).norm(dim=1).max() <= _ROUNDING * first.norm():
        raise EvaluationError(
            f"{what}: all {len(features)} images look the same to the extractor; "
            "a generator that makes one image only has collapsed: train again with another seed"
        )


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
