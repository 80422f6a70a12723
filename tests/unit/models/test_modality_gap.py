"""Removal of the modality gap: closed forms."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clipgan.models.modality_gap import ModalityMeans, compute_modality_mean


def test_pairs_apart_by_a_constant_come_together() -> None:
    """Features that share their content and differ by their modality's offset alone."""
    draws = torch.Generator().manual_seed(0)
    content = torch.randn(200, 32, generator=draws)
    content -= content.mean(0)
    offsets = 20 * torch.eye(32)[:2]
    images, texts = content + offsets[0], content + offsets[1]
    means = ModalityMeans(image=images.mean(0), text=texts.mean(0))
    assert F.cosine_similarity(images, texts).mean() < 0.2
    wanted = F.normalize(content, dim=1)
    assert torch.allclose(means.centre_images(images), wanted, atol=1e-4)
    assert torch.allclose(means.centre_texts(texts), wanted, atol=1e-4)


def test_the_mean_is_exact_for_many_half_precision_rows() -> None:
    features = np.ones((100_000, 2), dtype=np.float16)
    features[:, 1] = 0.1
    mean = compute_modality_mean(features)
    assert mean.dtype == torch.float32
    assert torch.allclose(mean, torch.tensor([1.0, float(np.float16(0.1))]))


def test_images_get_gradients_through_the_shift() -> None:
    means = ModalityMeans(image=torch.full((4,), 0.1), text=torch.zeros(4))
    features = F.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    means.centre_images(features)[:, 0].sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
