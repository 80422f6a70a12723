"""Promises of LAFITE's networks that need no reference numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.errors import ConfigError
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.losses.adversarial import compute_discriminator_loss
from clipgan.losses.penalties import PathLengthPenalty, compute_r1_penalty
from tests.unit.models.released_lafite import build_released_size

DTYPES = [torch.float32, torch.bfloat16]


def build_generator(resolution_px: int = 16, text_gain: float = 1.0) -> LafiteGenerator:
    torch.manual_seed(0)
    return LafiteGenerator(
        resolution_px=resolution_px,
        text_dim=6,
        latent_dim=5,
        style_dim=7,
        text_hidden_dim=8,
        mapping_layers=2,
        channel_base=128,
        channel_max=16,
        text_gain=text_gain,
    )


def build_discriminator(resolution_px: int = 16, **options: Any) -> LafiteDiscriminator:
    torch.manual_seed(1)
    return LafiteDiscriminator(
        resolution_px=resolution_px,
        text_dim=6,
        channel_base=128,
        channel_max=16,
        minibatch_std_group=4,
        **options,
    )


def draw_inputs(batch: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(batch, 5, generator=generator)
    return latents, F.normalize(torch.randn(batch, 6, generator=generator), dim=1)


@pytest.mark.parametrize("resolution_px", [8, 32])
def test_shapes_and_slots(resolution_px: int) -> None:
    generator = build_generator(resolution_px)
    latents, texts = draw_inputs()
    styles = generator.mapping(latents)
    assert styles.shape == (4, generator.num_layers, 7)
    images = generator(latents, texts)
    assert images.shape == (4, 3, resolution_px, resolution_px)
    assert images.dtype == torch.float32
    output = build_discriminator(resolution_px)(images)
    assert output.realness.shape == (4,)
    assert output.semantic_features.shape == (4, 6)


def test_official_size_has_the_published_number_of_parameters() -> None:
    generator, discriminator = build_released_size()
    # The official state dicts: these values without their noise buffers and latent average.
    assert sum(p.numel() for p in generator.parameters()) == 44_997_026
    assert sum(p.numel() for p in discriminator.parameters()) == 29_126_785


def test_every_slot_and_the_text_reach_the_image() -> None:
    generator = build_generator()
    latents, texts = draw_inputs(1)
    styles = generator.mapping(latents)
    image = generator.synthesis(styles, texts, noise="none")
    for slot in range(generator.num_layers):
        moved = styles.clone()
        moved[:, slot] += 1.0
        assert not torch.equal(generator.synthesis(moved, texts, noise="none"), image), slot
    assert not torch.equal(generator.synthesis(styles, -texts, noise="none"), image)


def test_every_parameter_gets_a_gradient() -> None:
    generator, discriminator = build_generator(), build_discriminator()
    latents, texts = draw_inputs()
    output = discriminator(generator(latents, texts))
    discriminator.compute_logits(output, texts).mean().backward()
    for module in (generator, discriminator):
        dead = [name for name, p in module.named_parameters() if p.grad is None]
        assert not dead


def test_noise_modes() -> None:
    generator = build_generator()
    latents, texts = draw_inputs()
    styles = generator.mapping(latents)

    def synthesise(mode: str, seed: int = 0) -> Tensor:
        drawn = torch.Generator().manual_seed(seed)
        return generator.synthesis(styles, texts, noise=mode, rng=drawn)

    assert torch.equal(synthesise("random"), synthesise("none")), "strength starts at zero"
    for layer in generator.modules():
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.data.fill_(0.5)
    assert torch.equal(synthesise("const"), synthesise("const", seed=1))
    assert torch.equal(synthesise("random"), synthesise("random"))
    assert not torch.equal(synthesise("random"), synthesise("random", seed=1))
    assert not torch.equal(synthesise("const"), synthesise("none"))
    with pytest.raises(ConfigError, match="noise = 'some': use random, const or none"):
        synthesise("some")


def test_truncation() -> None:
    generator = build_generator()
    latents, texts = draw_inputs()
    styles = generator.mapping(latents)
    for _ in range(3):
        generator.update_latent_average(styles)
    expected = styles[:, 0].mean(0) * (1 - 0.995**3)
    assert torch.allclose(generator.latent_average, expected, atol=1e-6)
    assert torch.equal(generator.truncate(styles, 1.0), styles)
    pulled = generator.truncate(styles, 0.0)
    assert torch.allclose(pulled, generator.latent_average.expand_as(styles))
    partly = generator.truncate(styles, 0.0, num_slots=2)
    assert torch.equal(partly[:, :2], pulled[:, :2])
    assert torch.equal(partly[:, 2:], styles[:, 2:])
    same = generator(latents, texts[:1].expand(4, -1), truncation=0.0)
    assert torch.allclose(same[0], same[3], atol=1e-5), "the latent no longer matters"


def test_logit_of_a_sample_does_not_depend_on_the_texts_of_others() -> None:
    discriminator = build_discriminator()
    _, texts = draw_inputs(8)
    torch.manual_seed(3)
    output = discriminator(torch.randn(8, 3, 16, 16))
    logits = discriminator.compute_logits(output, texts)
    other = texts.clone()
    other[1:] = other[1:].flip(0)
    assert torch.equal(discriminator.compute_logits(output, other)[0], logits[0])
    head = type(output)(output.realness[:3], output.semantic_features[:3])
    assert torch.allclose(discriminator.compute_logits(head, texts[:3]), logits[:3])


def test_logit_does_not_depend_on_the_batch_beyond_its_group() -> None:
    discriminator = build_discriminator()
    _, texts = draw_inputs(8)
    torch.manual_seed(3)
    images = torch.randn(8, 3, 16, 16)
    whole = discriminator.compute_logits(discriminator(images), texts)
    group = slice(0, None, 2)  # samples 0, 2, 4, 6 share the minibatch statistics
    alone = discriminator.compute_logits(discriminator(images[group]), texts[group])
    assert torch.allclose(whole[group], alone, atol=1e-5)


def test_batch_sum_adds_the_products_of_all_samples_to_every_logit() -> None:
    discriminator = build_discriminator(semantic_logit="batch_sum")
    _, texts = draw_inputs(8)
    torch.manual_seed(3)
    images = torch.randn(8, 3, 16, 16, requires_grad=True)
    output = discriminator(images)
    logits = discriminator.compute_logits(output, texts)
    pairs = zip(output.semantic_features.detach(), texts, strict=True)
    total = sum(float(features @ text) for features, text in pairs)
    assert torch.allclose(logits - output.realness, torch.full((8,), total), atol=1e-5)
    plain = build_discriminator()
    # The semantic part of the summed logits' gradient is N = 8 times as strong.
    realness = torch.autograd.grad(output.realness.sum(), images, retain_graph=True)[0]
    summed = torch.autograd.grad(logits.sum(), images)[0]
    single = torch.autograd.grad(plain.compute_logits(plain(images), texts).sum(), images)[0]
    assert torch.allclose(summed - realness, 8 * (single - realness), atol=1e-5)


def test_normalized_semantic_features_have_length_one_in_the_logit() -> None:
    discriminator = build_discriminator(normalize_semantic=True)
    _, texts = draw_inputs(4)
    output = discriminator(torch.randn(4, 3, 16, 16))
    logits = discriminator.compute_logits(output, texts)
    cosines = F.cosine_similarity(output.semantic_features, texts, dim=1)
    assert torch.allclose(logits - output.realness, cosines, atol=1e-5)


def test_an_unknown_semantic_logit_is_refused() -> None:
    with pytest.raises(ConfigError, match="semantic_logit = 'sum': use per_sample or batch_sum"):
        build_discriminator(semantic_logit="sum")


def test_batch_of_one_is_a_group_of_one() -> None:
    output = build_discriminator()(torch.randn(1, 3, 16, 16))
    assert torch.isfinite(output.realness).all()


def test_batch_that_does_not_fit_the_group() -> None:
    with pytest.raises(ConfigError, match="minibatch_std_group = 4 does not divide the batch of 6"):
        build_discriminator()(torch.zeros(6, 3, 16, 16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_double_backward(dtype: torch.dtype) -> None:
    generator, discriminator = build_generator(), build_discriminator()
    generator.compute_dtype = discriminator.compute_dtype = dtype
    latents, texts = draw_inputs()
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    logits = discriminator.compute_logits(discriminator(images), texts)
    compute_r1_penalty(logits, images).mean().backward()
    styles = generator.mapping(latents)
    made = generator.synthesis(styles, texts, noise="const")
    PathLengthPenalty(0.01)(made, styles).mean().backward()
    for module in (generator, discriminator):
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_one_step_lowers_the_discriminator_loss() -> None:
    generator, discriminator = build_generator(), build_discriminator()
    latents, texts = draw_inputs()
    reals = torch.rand(4, 3, 16, 16) * 2 - 1
    fakes = generator(latents, texts).detach()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2, betas=(0.0, 0.99))
    losses = []
    for _ in range(5):
        real = discriminator.compute_logits(discriminator(reals), texts)
        fake = discriminator.compute_logits(discriminator(fakes), texts)
        loss = compute_discriminator_loss("logistic", real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_copies_are_independent_and_give_the_same_bits() -> None:
    generator = build_generator()
    twin = copy.deepcopy(generator)
    latents, texts = draw_inputs()
    with torch.no_grad():
        assert torch.equal(generator(latents, texts), twin(latents, texts))
        twin.constant.add_(1.0)
        assert not torch.equal(generator(latents, texts), twin(latents, texts))


def test_text_gain_scales_the_text_alone() -> None:
    latents, text = torch.randn(2, 5), F.normalize(torch.randn(2, 6), dim=1)
    plain, loud = build_generator(), build_generator(text_gain=4.0)
    torch.testing.assert_close(loud(latents, text), plain(latents, 4.0 * text))
    assert not torch.allclose(loud(latents, text), plain(latents, text))
    assert loud.architecture["text_gain"] == 4.0
