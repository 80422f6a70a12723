"""Hinge terms, mismatched texts and MA-GP against closed forms."""

from __future__ import annotations

import pytest
import torch

from clipgan.errors import ConfigError
from clipgan.families.galip.training.losses import (
    compute_clip_similarity,
    compute_discriminator_hinge,
    compute_ma_gp,
)
from clipgan.losses.adversarial import (
    compute_fake_hinge,
    compute_generator_loss,
    compute_real_hinge,
    mismatch_texts,
)


def test_hinge_stops_at_the_margin() -> None:
    logits = torch.tensor([-3.0, 0.0, 0.5, 2.0])
    assert compute_real_hinge(logits).item() == pytest.approx((4.0 + 1.0 + 0.5 + 0.0) / 4)
    assert compute_fake_hinge(logits).item() == pytest.approx((0.0 + 1.0 + 1.5 + 3.0) / 4)
    assert compute_generator_loss("hinge", logits).item() == pytest.approx(0.5 / 4)


def test_the_negatives_share_one() -> None:
    terms = (torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0))
    assert compute_discriminator_hinge(*terms, 0.5).item() == pytest.approx(56.0)
    assert compute_discriminator_hinge(*terms, 0.0).item() == pytest.approx(101.0)


def test_similarity_is_a_cosine_of_any_length() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    texts = torch.tensor([[0.1, 0.0], [7.0, 0.0]])
    assert compute_clip_similarity(embeddings, texts).item() == pytest.approx(0.5)


def test_every_image_gets_the_next_ones_text_without_a_graph() -> None:
    texts = torch.arange(3.0)[:, None].requires_grad_()
    rolled = mismatch_texts(texts)
    assert rolled[:, 0].tolist() == [1.0, 2.0, 0.0]
    assert not rolled.requires_grad


def test_a_batch_of_one_has_no_mismatched_text() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size = 1"):
        mismatch_texts(torch.zeros(1, 4))


@pytest.mark.parametrize("scale", [1.0, 4096.0])
def test_ma_gp_of_a_linear_critic(scale: float) -> None:
    """Norms sum over both inputs: |(3, 4, 12)| = 13 whatever the inputs are."""
    weight = torch.tensor([3.0, 4.0, 12.0], dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    sentences = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    logits = (features.flatten(1) * weight[:2]).sum(1) + (sentences * weight[2:]).sum(1)
    penalty = compute_ma_gp(logits, (features, sentences), power=6.0, gradient_scale=scale)
    assert penalty.tolist() == pytest.approx([13.0**6] * 2, rel=1e-6)
    penalty.mean().backward()
    # d |w|^6 / dw = 6 |w|^4 w.
    assert weight.grad is not None
    expected = [6 * 13.0**4 * value for value in (3.0, 4.0, 12.0)]
    assert weight.grad.tolist() == pytest.approx(expected, rel=1e-5)


def test_ma_gp_has_a_slope_where_the_gradient_is_zero() -> None:
    weight = torch.zeros(3, requires_grad=True)
    features = torch.randn(2, 3, requires_grad=True)
    compute_ma_gp((features * weight).sum(1), (features,), power=6.0).mean().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(3))


def test_ma_gp_of_half_precision_logits_is_float32_and_does_not_vanish() -> None:
    features = torch.ones(1, 4, requires_grad=True)
    # In float16 a gradient of 1e-8 is zero unless it is scaled.
    critic = (features.half() * torch.tensor(1e-4).half() * torch.tensor(1e-4).half()).sum(1)
    plain = compute_ma_gp(critic, (features,), power=2.0)
    scaled = compute_ma_gp(critic, (features,), power=2.0, gradient_scale=2.0**14)
    assert plain.dtype == scaled.dtype == torch.float32
    assert plain.item() == 0.0
    assert scaled.sqrt().item() == pytest.approx(2e-8, rel=0.02)
