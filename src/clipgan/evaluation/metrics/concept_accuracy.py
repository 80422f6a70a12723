"""Concept accuracy: does the nearest real image, among those of many concepts, show the right one?

It is measured in the space of an independent feature extractor (cosine of pooled features), because
the generator is trained against CLIP. The gallery has one real image for each concept, so the
accuracy of guessing is one over the number of concepts.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import CaptionInputs
from clipgan.evaluation.metrics.metric import Found, metric
from clipgan.evaluation.spaces.checks import check_finite
from clipgan.metrics.values import SHARE


@metric(
    "concept_accuracy", better="higher", value_range=SHARE, needs=CaptionInputs, names_space=False
)
def measure_concept_accuracy(inputs: CaptionInputs) -> Found:
    """Average over the concepts, each over its images; there is no value without a gallery."""
    if inputs.gallery is None or inputs.concepts is None:
        return None
    concepts = inputs.concepts.repeat_interleave(inputs.samples_per_caption)
    hits = compute_hits(inputs.features, concepts, inputs.gallery)
    means = hits.view(-1, inputs.samples_per_caption).mean(dim=1)
    return {inputs.variant: inputs.grouping.average(means, concepts=len(inputs.gallery))}


def compute_hits(features: Tensor, concepts: Tensor, gallery_features: Tensor) -> Tensor:
    """Return 1 where the nearest gallery image shows the right concept, else 0, (N,) float64.

    Args:
        features: (N, D) float32 of the images to classify.
        concepts: (N,) int64, row of the gallery that is right for each image.
        gallery_features: (C, D) float32, one real image a concept.

    Raises:
        EvaluationError: NaN, or a gallery of fewer than two concepts.
    """
    if len(gallery_features) < 2:
        raise EvaluationError(
            f"concept accuracy needs at least 2 concepts, not {len(gallery_features)}: "
            "raise evaluate.num_concepts"
        )
    check_finite(features, "features of the generated images")
    check_finite(gallery_features, "features of the gallery")
    similarities = normalize(features, dim=1) @ normalize(gallery_features, dim=1).T
    return (similarities.argmax(dim=1) == concepts).double()
