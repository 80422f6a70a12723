"""Removal of CLIP's modality gap (C3: Zhang et al. 2024, arXiv 2401.08567).

Image and text features of one CLIP lie on two cones that barely touch. Each modality minus its own
mean ("collapse") brings them together; noise added in training ("corrupt") covers what is left. A
generator trained this way speaks the shifted space: whatever is shown to it later is shifted alike,
so the means belong to its bundle.
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
    """``image`` and ``text`` (D,) float32: the means of unit-norm features of a training set."""

    image: Tensor
    text: Tensor

    def centre_images(self, image_features: Tensor) -> Tensor:
        """(N, D) float32, unit norm -> the same without the modality's mean, unit norm.

        Differentiable with respect to the features.
        """
        return _centre(image_features, self.image)

    def centre_texts(self, text_features: Tensor) -> Tensor:
        """:meth:`centre_images` for text features."""
        return _centre(text_features, self.text)


def compute_modality_mean(features: NDArray[np.float16]) -> Tensor:
    """Mean (D,) float32 of the rows of (N, D), summed in float64."""
    return torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32))


def _centre(features: Tensor, mean: Tensor) -> Tensor:
    return F.normalize(features - mean.to(features.device), dim=1)
