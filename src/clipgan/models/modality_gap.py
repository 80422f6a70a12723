"""Removal of CLIP's modality gap (C3: Zhang et al. 2024, arXiv 2401.08567).

Image and text features of one CLIP lie in two separate cones. Subtracting the mean of each modality
("collapse") brings them together, and noise in training ("corrupt") covers the difference that is
left. A generator that was trained this way needs the same means subtracted from all its conditions,
so they are part of its bundle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ModalityMeans:
    """Means of the unit-norm features of a training set: ``image`` and ``text``, (D,) float32."""

    image: Tensor
    text: Tensor

    def centre_images(self, image_features: Tensor) -> Tensor:
        """Subtract the modality's mean from (N, D) float32 unit vectors and normalise the result.

        The result is differentiable with respect to the features.
        """
        return _centre(image_features, self.image)

    def centre_texts(self, text_features: Tensor) -> Tensor:
        """Do the same for text features."""
        return _centre(text_features, self.text)


def compute_modality_mean(features: NDArray[np.float16]) -> Tensor:
    """Compute the mean (D,) float32 of the rows of (N, D), summed in float64."""
    return torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32))


def _centre(features: Tensor, mean: Tensor) -> Tensor:
    return F.normalize(features - mean.to(features.device), dim=1)
