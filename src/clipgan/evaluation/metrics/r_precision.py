"""R-precision: does the image fit its own caption better than every other one?

As in AttnGAN (Xu et al. 2018, section 4): an image counts when its own caption is more
similar to it than every one of ``num_candidates - 1`` random captions of other concepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import TextInputs
from clipgan.evaluation.metrics.metric import Found, metric
from clipgan.evaluation.spaces.checks import check_finite
from clipgan.metrics.values import SHARE

DISTRACTOR_STREAM = 2
"""Second word of the random seed, which keeps this choice independent of those of reference.py."""


def choose_distractors(
    own_captions: Sequence[str],
    own_concepts: Sequence[str],
    captions_of: dict[str, list[str]],
    *,
    num_candidates: int,
    seed: int,
) -> list[list[str]]:
    """Choose for each image its own caption, and then one caption each of other concepts.

    Args:
        own_captions, own_concepts: of each generated image.
        captions_of: concept -> its captions, for all concepts of the reference split.

    Raises:
        EvaluationError: there are not enough other concepts.
    """
    concepts = list(captions_of)
    if len(concepts) < num_candidates:
        raise EvaluationError(
            f"evaluate.retrieval_candidates = {num_candidates} needs captions of as many concepts, "
            f"the reference split has {len(concepts)}: set it to {len(concepts)} or less"
        )
    rng = np.random.default_rng([seed, DISTRACTOR_STREAM])
    chosen = []
    for caption, concept in zip(own_captions, own_concepts, strict=True):
        candidates = [caption]
        # A few concepts share a caption word for word; another concept then takes its place.
        spare = min(len(concepts), num_candidates + 16)
        for index in rng.choice(len(concepts), size=spare, replace=False):
            other = concepts[index]
            text = captions_of[other][int(rng.integers(len(captions_of[other])))]
            if other != concept and text not in candidates and len(candidates) < num_candidates:
                candidates.append(text)
        if len(candidates) < num_candidates:
            raise EvaluationError(
                f"evaluate.retrieval_candidates = {num_candidates}: only {len(candidates)} "
                f"different captions for {caption!r}: set it to {len(candidates)} or less"
            )
        chosen.append(candidates)
    return chosen


@metric("r_precision", better="higher", value_range=SHARE, needs=TextInputs)
def measure_r_precision(inputs: TextInputs) -> Found:
    """Measured where there are other texts to choose from."""
    if inputs.candidates is None:
        return None
    texts, rows = inputs.candidates
    return inputs.average(compute_wins(inputs.features, texts, rows), candidates=rows.shape[1])


def compute_wins(image_features: Tensor, candidate_features: Tensor, candidates: Tensor) -> Tensor:
    """Return 1 where an image's own caption is more similar than every other, else 0, (N,) float64.

    A tie counts as 0.

    Args:
        image_features: (N, D) float32, unit norm.
        candidate_features: (M, D) float32, unit norm, of different captions.
        candidates: (N, C) int64 rows of ``candidate_features``; column 0 is the own caption.
    """
    check_finite(image_features, "CLIP features of the generated images")
    check_finite(candidate_features, "CLIP features of the captions")
    similarities = (image_features @ candidate_features.T).gather(1, candidates)
    return (similarities[:, 0] > similarities[:, 1:].amax(dim=1)).double()


def index_captions(candidates: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """List the different captions once, and return the list with (N, C) int64 rows of it."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(t for c in candidates for t in c))}
    return list(rows), torch.tensor([[rows[text] for text in texts] for texts in candidates])
