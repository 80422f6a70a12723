"""The contrastive term of LAFITE (arXiv 2111.13792, equations 5 and 6) and its official form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import ContrastiveAxis, ContrastiveKind
from clipgan.errors import ConfigError


def compute_contrastive_loss(
    features: Tensor,
    text_features: Tensor,
    temperature: float,
    *,
    kind: ContrastiveKind = "infonce",
    axis: ContrastiveAxis = "image",
) -> Tensor:
    """Cross entropy of finding what belongs together, from cosines, within the batch.

    With ``s_ij`` the similarity of image i and text j, the term is ``-mean_j log softmax(s)_jj``:

    - ``infonce``: ``s_ij = cos_ij / temperature``, the equation of the paper;
    - ``sharpened``: ``s_ij = exp(cos_ij / temperature)``, so that the softmax takes the exponential
      of an exponential, and ``log(temperature)`` is subtracted from the term, which changes no
      gradient. This is the form of the released code, and of the published weights and
      temperatures.

    To compare images with images, one set takes the place of the texts.

    Args:
        features: (N, D) of the images, of any length: the discriminator's semantic features or CLIP
            features.
        text_features: (N, D) of any length; row i belongs to image i.
        axis: the direction of the softmax: ``image`` finds each text's own image among the images
            (the official default, ``lam = 0``), ``text`` each image's own text among the texts
            (``lam = 1``), ``both`` is the mean of the two (``lam = 0.5``).

    Returns:
        Scalar float32.

    Raises:
        ConfigError: N is 1, so there is no other image to compare with.
    """
    if len(features) < 2:
        raise ConfigError(
            f"the contrastive terms need two images in a batch, not {len(features)}: raise "
            "train.batch_size, or set all contrastive weights of train.lafite.losses to 0"
        )
    cosines = F.normalize(text_features.float(), dim=1) @ F.normalize(features.float(), dim=1).t()
    similarities, shift = cosines / temperature, 0.0
    if kind == "sharpened":
        similarities, shift = similarities.exp(), math.log(temperature)
    # Rows are texts: the softmax of a row runs over the images.
    own = torch.arange(len(features), device=features.device)
    match axis:
        case "image":
            loss = F.cross_entropy(similarities, own)
        case "text":
            loss = F.cross_entropy(similarities.t(), own)
        case "both":
            loss = (F.cross_entropy(similarities, own) + F.cross_entropy(similarities.t(), own)) / 2
    return loss - shift if shift else loss
