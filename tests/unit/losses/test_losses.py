"""Losses and penalties: closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clipgan.config import AdversarialKind, ContrastiveAxis, ContrastiveKind
from clipgan.errors import ConfigError
from clipgan.losses.adversarial import compute_discriminator_loss, compute_generator_loss
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.losses.penalties import PathLengthPenalty, compute_path_lengths, compute_r1_penalty
from clipgan.losses.reconstruction import compute_reconstruction_loss, fade_weight


def test_logistic_losses() -> None:
    zeros = torch.zeros(4)
    assert compute_generator_loss("logistic", zeros).item() == pytest.approx(math.log(2))
    assert compute_discriminator_loss("logistic", zeros, zeros).item() == pytest.approx(
        2 * math.log(2)
    )
    assert compute_generator_loss("logistic", torch.tensor([50.0])).item() == pytest.approx(
        0.0, abs=1e-6
    )
    wrong = compute_discriminator_loss("logistic", torch.tensor([-100.0]), torch.tensor([50.0]))
    assert wrong.item() == pytest.approx(150.0)


def test_hinge_losses() -> None:
    real, fake = torch.tensor([-1.0, 3.0]), torch.tensor([-2.0, 0.5])
    # (2 + 0) / 2 + (0 + 1.5) / 2, and -(-2 + 0.5) / 2.
    assert compute_discriminator_loss("hinge", real, fake).item() == pytest.approx(1.75)
    assert compute_generator_loss("hinge", fake).item() == pytest.approx(0.75)


def test_relativistic_losses_see_differences_alone() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])
    softplus = [math.log1p(math.exp(x)) for x in (-1.5, 2.0)]
    assert compute_discriminator_loss("relativistic", real, fake).item() == pytest.approx(
        sum(softplus) / 2
    )
    assert compute_generator_loss("relativistic", fake, real).item() == pytest.approx(
        sum(math.log1p(math.exp(x)) for x in (1.5, -2.0)) / 2
    )
    shifted = compute_discriminator_loss("relativistic", real + 7.0, fake + 7.0)
    assert shifted.item() == pytest.approx(sum(softplus) / 2)


@pytest.mark.parametrize("kind", ["logistic", "hinge", "relativistic"])
def test_mismatched_texts_share_the_negatives_weight(kind: AdversarialKind) -> None:
    real, fake, other = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    alone = [compute_discriminator_loss(kind, real, negative).item() for negative in (fake, other)]
    shared = compute_discriminator_loss(kind, real, fake, other, 0.25).item()
    assert shared == pytest.approx(0.75 * alone[0] + 0.25 * alone[1])
    assert alone[0] != pytest.approx(alone[1], rel=1e-3)


def test_generator_gradient_does_not_vanish_when_the_discriminator_wins() -> None:
    logits = torch.tensor([-30.0], requires_grad=True)
    compute_generator_loss("logistic", logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1.0)


def test_contrastive_loss_is_cross_entropy_over_images() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(6, 8), torch.randn(6, 8)
    cosines = torch.stack(
        [torch.stack([F.cosine_similarity(i, t, dim=0) for t in texts]) for i in images]
    )
    over_images = -(cosines / 0.5).log_softmax(0).diagonal().mean()
    over_texts = -(cosines / 0.5).log_softmax(1).diagonal().mean()
    loss = compute_contrastive_loss(images, texts, 0.5).item()
    assert loss == pytest.approx(over_images.item(), rel=1e-5)
    assert loss != pytest.approx(over_texts.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["infonce", "sharpened"])
def test_contrastive_loss_over_texts_and_over_both(kind: ContrastiveKind) -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(6, 8), torch.randn(6, 8)
    cosines = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t()
    similarities = cosines / 0.5 if kind == "infonce" else (cosines / 0.5).exp()
    shift = 0.0 if kind == "infonce" else math.log(0.5)
    over = [-similarities.log_softmax(axis).diagonal().mean().item() - shift for axis in (0, 1)]

    def loss(axis: ContrastiveAxis) -> float:
        return compute_contrastive_loss(images, texts, 0.5, kind=kind, axis=axis).item()

    assert loss("image") == pytest.approx(over[0], rel=1e-5)
    assert loss("text") == pytest.approx(over[1], rel=1e-5)
    assert loss("both") == pytest.approx(sum(over) / 2, rel=1e-5)
    assert abs(over[0] - over[1]) > 1e-3


def test_contrastive_loss_of_one_image_is_an_error() -> None:
    with pytest.raises(ConfigError, match="need two images in a batch, not 1: raise"):
        compute_contrastive_loss(torch.ones(1, 4), torch.ones(1, 4), 0.5)


def test_contrastive_loss_at_its_ends() -> None:
    basis = torch.eye(5)
    assert compute_contrastive_loss(basis, basis, 0.01).item() == pytest.approx(0.0, abs=1e-6)
    same = torch.ones(5, 3)
    assert compute_contrastive_loss(same, same, 0.5).item() == pytest.approx(math.log(5))


def test_r1_of_a_linear_discriminator_is_its_squared_weight() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = compute_r1_penalty((images * weight).sum((1, 2, 3)), images)
    assert torch.allclose(penalty, weight.square().sum().expand(5), rtol=1e-5)
    penalty.mean().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * weight.detach(), rtol=1e-5)


def test_path_length_of_a_linear_synthesis() -> None:
    """Images A w per slot: the length is ||A^T noise|| / sqrt(H W), slots averaged in squares."""
    torch.manual_seed(0)
    maps = torch.randn(2, 3 * 4 * 4, 6)
    styles = torch.randn(3, 2, 6, requires_grad=True)
    images = torch.einsum("spd,nsd->np", maps, styles).view(3, 3, 4, 4)
    noise = torch.randn(3, 3, 4, 4)
    lengths = compute_path_lengths(images, styles, noise)
    pulled = torch.einsum("spd,np->nsd", maps, noise.flatten(1)) / 4
    assert torch.allclose(lengths, pulled.square().sum(2).mean(1).sqrt(), rtol=1e-5)


def test_path_length_penalty_moves_its_mean_first() -> None:
    styles = torch.randn(2, 1, 3, requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    weight = torch.zeros(3, 3, 1, 1)
    weight[0, 0] = 1.0
    images = scale * styles[:, 0, :1, None, None] * weight[:1, :, :, :]
    noise = torch.ones(2, 3, 1, 1)
    penalty = PathLengthPenalty(0.25)
    values = penalty(images, styles, noise=noise)
    # Lengths are 2, the mean moves from 0 to 0.5.
    assert penalty.mean_length.item() == pytest.approx(0.5)
    assert not penalty.mean_length.requires_grad
    assert values.tolist() == pytest.approx([1.5**2] * 2)
    values.mean().backward()
    # d/ds (s - 0.25 s)^2 = 2 * 0.75^2 * s: the gradient passes through the fresh part of the mean.
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(2 * 0.75**2 * 2)
    assert list(penalty.state_dict()) == ["mean_length"]


def test_path_length_noise_is_drawn_from_the_given_rng() -> None:
    def penalty(seed: int) -> list[float]:
        torch.manual_seed(seed + 100)
        styles = torch.ones(2, 1, 3, requires_grad=True)
        images = styles.square().view(2, 3, 1, 1).expand(2, 3, 4, 4)
        drawn = torch.Generator().manual_seed(0 if seed < 2 else seed)
        values: list[float] = PathLengthPenalty(0.01)(images, styles, rng=drawn).tolist()
        return values

    assert penalty(0) == penalty(1)
    assert penalty(0) != penalty(2)


def test_reconstruction_loss_counts_details_less_than_colours() -> None:
    images = torch.zeros(2, 3, 16, 16)
    shifted = images + 0.5
    assert compute_reconstruction_loss(shifted, images).item() == pytest.approx(0.5)
    # A checkerboard averages to zero in every cell but the single pixel.
    rows = torch.arange(16)
    board = (((rows[:, None] + rows) % 2) * 2.0 - 1.0).expand_as(images)
    assert compute_reconstruction_loss(board, images).item() == pytest.approx(1.0 / 4)
    assert compute_reconstruction_loss(images, images).item() == 0.0


def test_the_reconstruction_weight_fades_in_a_straight_line() -> None:
    weights = [fade_weight(50.0, images, 1000) for images in (0, 250, 900, 1000, 5000)]
    assert weights == pytest.approx([50.0, 37.5, 5.0, 0.0, 0.0])
    assert {fade_weight(50.0, images, 0) for images in (0, 10**9)} == {50.0}
