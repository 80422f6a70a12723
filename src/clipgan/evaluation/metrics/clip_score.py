"""CLIP score: does the image fit its own caption?"""

from __future__ import annotations

from torch import Tensor

from clipgan.evaluation.metrics.inputs import TextInputs
from clipgan.evaluation.metrics.metric import metric
from clipgan.evaluation.spaces.checks import check_finite
from clipgan.metrics.intervals import Estimate


@metric("clip_score", better="higher", value_range=(-1.0, 1.0), needs=TextInputs)
def measure_clip_score(inputs: TextInputs) -> Estimate:
    """Average over the images."""
    return inputs.average(compute_clip_scores(inputs.features, inputs.texts))


def compute_clip_scores(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Compute the cosine of each image with its own caption.

    Args:
        image_features, text_features: (N, D) float32, unit norm.

    Returns:
        (N,) float32 in [-1, 1]; neither scaled by 100 nor cut at 0.
    """
    check_finite(image_features, "CLIP features of the generated images")
    check_finite(text_features, "CLIP features of the captions")
    return (image_features * text_features).sum(dim=1)
