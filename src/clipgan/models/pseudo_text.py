"""Text features for training: pseudo text from images, perturbed true text, or a mix of both.

Three kinds of pseudo text: Gaussian noise (LAFITE-G), a trained mapper (LAFITE-NN), and Gaussian
noise in the space without modality gap (C3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import PseudoTextConfig
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import draw_normal, draw_uniform


def compute_pseudo_text(features: Tensor, noise_level: float, noise: Tensor) -> Tensor:
    """Move features in a random direction and back to the sphere (LAFITE, equation 2).

    ``h = f + noise_level * noise * ||f|| / ||noise||``, then ``h / ||h||``. From an image feature
    this makes a pseudo text feature of the image, from a text feature a perturbed one. The expected
    cosine of the result and its feature is about ``1 / sqrt(1 + noise_level^2)``.

    Args:
        features: (N, D) float32.
        noise_level: xi of the paper; 3 makes a feature a quarter and noise three quarters of the
            sum. The official code has weights ``w`` of the noise, where xi is ``w / (1 - w)``.
        noise: (N, D) standard normal.

    Returns:
        (N, D) float32, unit norm.
    """
    length = features.norm(dim=1, keepdim=True)
    moved = features + noise_level * length * F.normalize(noise, dim=1)
    return F.normalize(moved, dim=1)


def compute_training_text(
    image_features: Tensor,
    text_features: Tensor,
    config: PseudoTextConfig,
    rng: torch.Generator | None = None,
    mapper: NoiseMapper | None = None,
) -> Tensor:
    """Make the conditions of a batch: pseudo text with ``pseudo_text_probability``, else true text.

    True text is perturbed. A sample without a text feature (a row of zeros) always gets pseudo
    text. Both kinds use the same draw of noise. With probability 1 the text features are not used.
    Where ``config.kind`` is ``centred_gaussian``, the mean of their modality has been subtracted
    from the features before (:mod:`clipgan.models.modality_gap`).

    Args:
        image_features: (N, D) float32, unit norm.
        text_features: (N, D) float32, unit norm or zero.
        rng: on the features' device; None: the device's own.
        mapper: on the features' device; it makes the pseudo text where ``config.kind`` is
            ``mapper``.

    Returns:
        (N, D) float32, unit norm.
    """
    noise = draw_normal(image_features.shape, rng, device=image_features.device)
    probability = config.pseudo_text_probability
    if config.kind == "mapper":
        assert mapper is not None
        pseudo: Tensor = mapper(image_features, noise)
    else:
        pseudo = compute_pseudo_text(image_features, config.noise_level, noise)
    if probability == 1.0:
        return pseudo
    perturbed = compute_pseudo_text(text_features, config.true_text_noise_level, noise)
    takes_pseudo = ~text_features.any(dim=1, keepdim=True)
    if probability > 0.0:
        chance = draw_uniform((len(pseudo), 1), rng, device=pseudo.device)
        takes_pseudo |= chance < probability
    return torch.where(takes_pseudo, pseudo, perturbed)
