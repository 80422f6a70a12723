"""Latents that carry what the condition leaves open of the image (not in the papers).

Reconstruction from a condition and noise makes a generator that ignores its latents: the best
answer to noise is the mean of all pictures that fit the condition. So some dimensions of the latent
hold a code of the image instead: the principal components of what a linear map cannot tell from the
condition, with unit variance, as in generative latent optimisation (Bojanowski et al. 2018, arXiv
1707.05776, whose latents start from principal components). Components are uncorrelated with the
condition by construction, so that standard normal latents may stand in their place afterwards: the
same words, and other colours, weights and sizes. See ADR 0032.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import BatchLoader, TrainingData
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.models.pseudo_text import compute_training_text
from clipgan.random_draws import StepRandom

THUMBNAIL_PX = 8
"""Side of the reduced images that codes are made from: colours and coarse shape, no outlines."""
MAX_FITTED_IMAGES = 16_384
RIDGE = 0.01
"""Penalty on the linear map, over the mean variance of the conditions."""


@dataclass(frozen=True)
class LatentCodes:
    """A linear code of images given their conditions.

    ``condition_map`` (D + 1, 192) predicts a thumbnail from the condition and 1; ``components``
    (192, K) maps what is left of it to the code.
    """

    condition_map: Tensor
    components: Tensor

    @property
    def num_dims(self) -> int:
        """K."""
        return self.components.shape[1]

    def encode(self, images: Tensor, texts: Tensor) -> Tensor:
        """Images (N, 3, R, R) in [-1, 1] and their conditions (N, D) -> codes (N, K)."""
        left = _reduce(images) - _append_one(texts) @ self.condition_map
        return left @ self.components


def fit_latent_codes(pairs: Iterable[tuple[Tensor, Tensor]], num_dims: int) -> LatentCodes:
    """Find the principal components of what conditions do not tell of their images.

    Args:
        pairs: batches of images (N, 3, R, R) in [-1, 1] and their conditions (N, D).
        num_dims: K, at most 192.

    Returns:
        Codes of mean 0 and variance 1 in every dimension over ``pairs``. The largest components
        come first; the sign of each is such that its largest weight is positive.
    """
    batches = [(_reduce(images), texts) for images, texts in pairs]
    thumbnails = torch.cat([reduced for reduced, _ in batches]).double()
    conditions = _append_one(torch.cat([texts for _, texts in batches])).double()
    gram = conditions.T @ conditions
    penalty = torch.full_like(gram[0], RIDGE * float(gram.diagonal()[:-1].mean()))
    penalty[-1] = 0.0  # the mean is free
    condition_map = torch.linalg.solve(gram + penalty.diag(), conditions.T @ thumbnails)
    left = thumbnails - conditions @ condition_map
    variances, vectors = torch.linalg.eigh(left.T @ left / len(left))
    vectors = vectors.flip(1)[:, :num_dims]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    scale = variances.flip(0)[:num_dims].clamp(min=torch.finfo(torch.float32).eps).rsqrt()
    return LatentCodes(condition_map.float(), (vectors * largest.sign() * scale).float())


def fit_training_codes(
    config: TrainConfig,
    data: TrainingData,
    mapper: NoiseMapper | None,
    device: torch.device,
) -> LatentCodes | None:
    """Fit ``config.latent_codes`` codes to the training's own images and conditions.

    The same in every process: all read the same images, in the order of the first epoch. None where
    latents carry no codes, or nothing is reconstructed from them.
    """
    reconstructs = config.warm_up_images or config.section.losses.reconstruction_weight
    if not reconstructs or not config.latent_codes:
        return None
    num_batches = min(data.num_images, MAX_FITTED_IMAGES) // config.batch_size
    loader = BatchLoader(
        data, config.batch_size, seed=config.seed, mirror=config.mirror, device=device
    )
    random = StepRandom(device)

    def draw_pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(num_batches):
            batch = loader.batch_at(index * config.batch_size)
            random.seed("latent_codes", config.seed, index)
            texts = compute_training_text(
                batch.image_features, batch.text_features, config.pseudo_text, random.rng, mapper
            )
            yield batch.feature_images, texts

    return fit_latent_codes(draw_pairs(), config.latent_codes)


def _reduce(images: Tensor) -> Tensor:
    """(N, 3, R, R) -> (N, 192)."""
    return F.adaptive_avg_pool2d(images, THUMBNAIL_PX).flatten(1)


def _append_one(texts: Tensor) -> Tensor:
    return F.pad(texts, (0, 1), value=1.0)
