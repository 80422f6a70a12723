"""Hinge terms, MA-GP, similarity and the gradients of both totals equal the official ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from clipgan.families.galip.importer.weights import (
    translate_discriminator_key,
    translate_generator_key,
)
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
from tests.numerics.galip_reference import (
    arrays,
    assert_matches,
    build_discriminator,
    build_generator,
    facts,
    latents,
    real_images,
    sentences,
    statistics,
    tower,
)

CASES = (
    ("real256", "official"),
    ("real256", "correct"),
    pytest.param("real224", "official", marks=pytest.mark.slow),
    pytest.param("real224", "correct", marks=pytest.mark.slow),
)


@pytest.fixture(scope="module")
def fakes() -> torch.Tensor:
    with torch.no_grad():
        return build_generator()(latents(), sentences())


def assert_gradients(module: nn.Module, section: str, translate: Any) -> None:
    """Gradient norms of every parameter: 5e-4 relative, with a floor of 1e-3 of the largest."""
    wanted = facts()["grads"][section]
    parameters = dict(module.named_parameters())
    assert {translate(name) for name in wanted} == set(parameters)
    floor = 1e-3 * max(wanted.values())
    for name, norm in wanted.items():
        gradient = parameters[translate(name)].grad
        assert gradient is not None, name
        assert abs(float(gradient.norm()) - norm) <= 5e-4 * max(norm, floor), name


def assert_scalar(ours: torch.Tensor, name: str, tolerance: float = 1e-4) -> None:
    assert ours.item() == pytest.approx(float(arrays()[name]), rel=tolerance), name


def test_hinge_of_four_logits() -> None:
    logits = arrays()["unit.logits"]
    assert_scalar(compute_real_hinge(logits), "unit.hinge_pos", 1e-6)
    assert_scalar(compute_fake_hinge(logits), "unit.hinge_neg", 1e-6)


@pytest.mark.parametrize(("images", "clip_input"), CASES)
def test_discriminator_loss_penalty_and_gradients(
    images: str, clip_input: Any, fakes: torch.Tensor
) -> None:
    tag = f"{images}.{clip_input}"
    network = build_discriminator(clip_input)
    with torch.no_grad():
        real_pixels = tower().prepare(real_images(int(images[4:])), clip_input)
        fake_pixels = tower().prepare(fakes, clip_input)
        real = tower().encode_intermediates(real_pixels, network.tapped_blocks)
        fake = tower().encode_intermediates(fake_pixels, network.tapped_blocks)
    real, texts = real.requires_grad_(), network.scale_texts(sentences()).requires_grad_()
    features = network(real)
    matched = network.compute_logits(features, texts)
    mismatched = network.compute_logits(features, mismatch_texts(texts))
    terms = (
        compute_real_hinge(matched),
        compute_fake_hinge(mismatched),
        compute_fake_hinge(network.compute_logits(network(fake), texts.detach())),
    )
    for term, name in zip(terms, ("real", "mismatch", "fake"), strict=True):
        assert_scalar(term, f"{tag}.lossD.hinge_{name}")
    lengths = compute_ma_gp(matched, (real, texts), power=6.0).pow(1 / 6)
    assert_matches(lengths, f"{tag}.magp_gradnorm")
    text_part = compute_ma_gp(matched, (texts,), power=2.0).sqrt()
    assert_matches(text_part, f"{tag}.magp_gradnorm_text")
    penalty = 2.0 * compute_ma_gp(matched, (real, texts), power=6.0).mean()
    assert_scalar(penalty, f"{tag}.lossD.magp", 2e-4)
    scaled = compute_ma_gp(matched, (real, texts), power=6.0, gradient_scale=1024.0)
    assert 2.0 * scaled.mean().item() == pytest.approx(penalty.item(), rel=1e-5)

    penalty.backward(retain_graph=True)
    # The weight of the features alone has no part in a gradient with respect to its inputs.
    gradients = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    section = f"{tag}.magp"
    wanted = {k for k, v in facts()["grads"][section].items() if v > 0}
    assert gradients == {translate_discriminator_key(name) for name in wanted}
    network.zero_grad()
    total = compute_discriminator_hinge(*terms, 0.5) + penalty
    assert_scalar(total, f"{tag}.lossD.total")
    total.backward()
    assert_gradients(network, f"{tag}.lossD.total", translate_discriminator_key)


@pytest.mark.parametrize("clip_input", ["official", "correct"])
def test_generator_loss_and_gradients(clip_input: Any) -> None:
    tag = f"fake.{clip_input}"
    generator = build_generator()
    network = build_discriminator(clip_input).requires_grad_(False)
    images = generator(latents(), sentences())
    found = tower().encode(tower().prepare(images, clip_input), network.tapped_blocks)
    features = network(found.intermediates)
    logits = network.compute_logits(features, network.scale_texts(sentences()))
    similarity = compute_clip_similarity(found.embeddings, sentences())
    loss = compute_generator_loss("hinge", logits) - 4.0 * similarity
    assert_matches(found.intermediates[:, :, ::32], f"{tag}.feats_slice")
    assert_matches(statistics(found.intermediates, 2), f"{tag}.feats_stats")
    assert_matches(found.embeddings, f"{tag}.emb")
    assert_matches(features[:, ::16], f"{tag}.D_slice")
    assert_matches(statistics(features), f"{tag}.D_stats")
    assert_matches(logits[:, None, None, None], f"{tag}.C_match")
    assert similarity.item() == pytest.approx(float(arrays()[f"{tag}.cosine"].mean()), rel=1e-4)
    assert_scalar(loss, f"{tag}.lossG.total")
    loss.backward()
    assert_gradients(generator, f"{tag}.lossG.total", translate_generator_key)
    gradient = generator.to_rgb.bias.grad
    assert gradient is not None
    assert_matches(gradient, f"{tag}.lossG.grad_to_rgb_bias", 5e-4)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in tower().visual.parameters())
