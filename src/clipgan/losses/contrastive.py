"""The contrastive term of LAFITE (arXiv 2111.13792, equations 5 and 6), as standard InfoNCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_contrastive_loss(features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    """Cross entropy of finding each text's own image among the images of the batch.

    ``-mean_j log softmax_i(cos(features_i, text_j) / temperature)[i = j]``: the softmax runs over
    the images, not over the texts.

    Args:
        features: (N, D) of the images: the discriminator's semantic features or CLIP features.
            Any length; cosines are taken.
        text_features: (N, D), row i belongs to image i. Any length.

    Returns:
        Scalar float32.
    """
    cosines = F.normalize(text_features.float(), dim=1) @ F.normalize(features.float(), dim=1).t()
    own = torch.arange(len(features), device=features.device)
    return F.cross_entropy(cosines / temperature, own)
