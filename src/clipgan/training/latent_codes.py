"""Latents that carry what CLIP does not tell of the image (not in the papers).

Reconstruction from a condition and noise makes a generator that ignores its latents: the best
answer to noise is the mean of all pictures that fit the condition. So some dimensions of the latent
hold a code of the image instead, as in generative latent optimisation (Bojanowski et al. 2018,
arXiv 1707.05776): the lowest frequencies of a thumbnail, less what a linear map can tell of them
from the image's CLIP feature, whitened. Codes are uncorrelated with that feature by construction,
so standard normal latents may stand in their place afterwards: the same words, and other sizes,
places and weights. Frequencies mean the same in every data set, so a generator that is fine-tuned
finds in its latents what it has learned to read there. See ADR 0032.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import BatchLoader, TrainingData

THUMBNAIL_PX = 8
"""Side of the reduced images that codes are made from: colours and coarse shape, no outlines."""
OPPONENT_COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
"""Brightness, red against blue and purple against green, as weights of red, green and blue."""
MAX_FITTED_IMAGES = 16_384
RIDGE = 0.01
"""Penalty on the linear map, over the mean variance of the features."""


@dataclass(frozen=True)
class LatentCodes:
    """A linear code of images given their CLIP features.

    ``feature_map`` (D + 1, K) predicts the K lowest frequencies from the feature and 1;
    ``whitening`` (K, K) maps what is left of them to the code.
    """

    feature_map: Tensor
    whitening: Tensor

    @property
    def num_dims(self) -> int:
        """K."""
        return len(self.whitening)

    def encode(self, images: Tensor, features: Tensor) -> Tensor:
        """Images (N, 3, R, R) in [-1, 1] and their CLIP features (N, D) -> codes (N, K)."""
        left = _transform(images, self.num_dims) - _append_one(features) @ self.feature_map
        return left @ self.whitening


def fit_latent_codes(pairs: Iterable[tuple[Tensor, Tensor]], num_dims: int) -> LatentCodes:
    """Find what CLIP features do not tell of the lowest frequencies of their images.

    Args:
        pairs: batches of images (N, 3, R, R) in [-1, 1] and their CLIP features (N, D).
        num_dims: K, at most 192.

    Returns:
        Codes of mean 0 and variance 1 in every dimension over ``pairs``, uncorrelated. Of all such
        codes these are the nearest to the frequencies themselves (ZCA; Kessy et al. 2018, arXiv
        1512.00809), so that each keeps its meaning: brightness first, then up and down, left and
        right, red and blue, purple and green.
    """
    batches = [(_transform(images, num_dims), features) for images, features in pairs]
    frequencies = torch.cat([lowest for lowest, _ in batches]).double()
    features = _append_one(torch.cat([features for _, features in batches])).double()
    gram = features.T @ features
    penalty = torch.full_like(gram[0], RIDGE * float(gram.diagonal()[:-1].mean()))
    penalty[-1] = 0.0  # the mean is free
    feature_map = torch.linalg.solve(gram + penalty.diag(), features.T @ frequencies)
    left = frequencies - features @ feature_map
    variances, vectors = torch.linalg.eigh(left.T @ left / len(left))
    scale = variances.clamp(min=torch.finfo(torch.float32).eps).rsqrt()
    return LatentCodes(feature_map.float(), (vectors * scale @ vectors.T).float())


def fit_training_codes(
    config: TrainConfig, data: TrainingData, device: torch.device
) -> LatentCodes | None:
    """Fit ``config.latent_codes`` codes to the training's own images.

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

    def read_pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(num_batches):
            batch = loader.batch_at(index * config.batch_size)
            yield batch.feature_images, batch.image_features

    return fit_latent_codes(read_pairs(), config.latent_codes)


def _transform(images: Tensor, count: int) -> Tensor:
    """(N, 3, R, R) -> the ``count`` lowest frequencies of their thumbnails, (N, count)."""
    thumbnails = F.adaptive_avg_pool2d(images.float(), THUMBNAIL_PX).flatten(1)
    return thumbnails @ torch.from_numpy(_make_basis(count)).to(images.device)


@cache
def _make_basis(count: int) -> np.ndarray:
    """Orthonormal columns (192, count) float32: cosine waves (DCT-II) in opponent colours.

    Lowest first; a wave of colour counts as one frequency more, because eyes (and JPEG) see colours
    less finely.
    """
    colours = np.array(
        [np.divide(weights, np.linalg.norm(weights)) for weights in OPPONENT_COLOURS]
    )
    waves = scipy.fft.dct(np.eye(THUMBNAIL_PX), norm="ortho", axis=0)
    indices = product(range(3), range(THUMBNAIL_PX), range(THUMBNAIL_PX))
    lowest = sorted(indices, key=lambda index: (index[1] + index[2] + (index[0] > 0), *index))
    columns = [
        np.einsum("c,h,w->chw", colours[colour], waves[row], waves[column]).ravel()
        for colour, row, column in lowest[:count]
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _append_one(features: Tensor) -> Tensor:
    return F.pad(features, (0, 1), value=1.0)
