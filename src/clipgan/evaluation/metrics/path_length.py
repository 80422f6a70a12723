"""Perceptual path length (Karras et al. 2019, section 4.1) by torch-fidelity, captions held fixed.

How far the picture moves in a feature space for a small step between two random latents. The space
is the protocol's own, and its name is in the metric's: values do not compare with the papers',
which use LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
from torch_fidelity.metric_ppl import KEY_METRIC_PPL_RAW, calculate_ppl
from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY, register_sample_similarity
from torch_fidelity.sample_similarity_base import SampleSimilarityBase

from clipgan.evaluation.metrics.inputs import GenerateFloat, GeneratorInputs
from clipgan.evaluation.metrics.metric import POSITIVE, Found, metric
from clipgan.evaluation.spaces.checks import check_finite

BATCH = 8
EncodeFloat = Callable[[Tensor], Tensor]
"""Images (N, 3, R, R) float in [-1, 1] -> features (N, D)."""
_SIMILARITY = "clipgan-feature-space"


@metric("path_length", better="lower", value_range=POSITIVE, needs=GeneratorInputs)
def measure_path_length(inputs: GeneratorInputs) -> Found:
    """Measured where the feature extractor takes images that are not rounded to uint8."""
    if inputs.space.encode_float is None:
        return None
    lengths = compute_perceptual_path_lengths(
        inputs.latents.generate,
        inputs.latents.encode_texts(inputs.captions),
        latent_dim=inputs.latents.latent_dim,
        encode=inputs.space.encode_float,
        epsilon=inputs.epsilon,
        seed=inputs.seed,
        batch_size=BATCH,
    )
    return inputs.grouping.average(lengths, steps_per_latent=round(1 / inputs.epsilon))


class _Captioned(nn.Module):
    """A generator that takes latents alone; each pair of latents gets the next caption."""

    def __init__(self, generate: GenerateFloat, texts: Tensor) -> None:
        super().__init__()
        self._generate, self._texts, self._next = generate, texts, 0

    def forward(self, latents: Tensor) -> Tensor:
        half = len(latents) // 2
        texts = self._texts[self._next : self._next + half]
        self._next += half
        return self._generate(latents, torch.cat([texts, texts]))


class _FeatureDistance(SampleSimilarityBase):  # type: ignore[misc]
    """Squared distance of unit-norm features; ``encode`` is set before each call."""

    encode: EncodeFloat

    def __init__(self, name: str, **_: object) -> None:
        super().__init__(name)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = (normalize(self.encode(images).double(), dim=1) for images in (first, second))
        return (a - b).square().sum(dim=1)


def compute_perceptual_path_lengths(
    generate: GenerateFloat,
    texts: Tensor,
    *,
    latent_dim: int,
    encode: EncodeFloat,
    epsilon: float,
    seed: int,
    batch_size: int,
) -> Tensor:
    """Compute one length for each caption, (N,) float64: squared feature distance over epsilon^2.

    Args:
        texts: (N, D) features of the captions.
        encode: features of the generator's float images; rounding to uint8 would hide a step of
            epsilon.
        epsilon: length of a step, as a share of the way from one latent to another.

    Raises:
        EvaluationError: a length is NaN.
    """
    if _SIMILARITY not in SAMPLE_SIMILARITY_REGISTRY:
        register_sample_similarity(_SIMILARITY, _FeatureDistance)
    _FeatureDistance.encode = staticmethod(encode)
    wrapped = GenerativeModelModuleWrapper(
        _Captioned(generate, texts), latent_dim, "normal", 0, make_eval=False
    )
    measured = calculate_ppl(
        1,
        input1=wrapped,
        input1_model_num_samples=len(texts),
        batch_size=batch_size,
        cuda=False,  # the networks are where they belong already
        verbose=False,
        rng_seed=seed,
        ppl_epsilon=epsilon,
        ppl_reduction="none",
        ppl_sample_similarity=_SIMILARITY,
        ppl_discard_percentile_lower=None,
        ppl_discard_percentile_higher=None,
    )
    lengths = torch.from_numpy(np.asarray(measured[KEY_METRIC_PPL_RAW], dtype=np.float64))
    check_finite(lengths[:, None], "perceptual path lengths")
    return lengths
