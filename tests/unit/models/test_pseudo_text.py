"""Pseudo text features: the paper's equation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clipgan.config import PseudoTextConfig
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.models.pseudo_text import (
    compute_pseudo_text,
    compute_training_text,
)


def config(probability: float, **changes: Any) -> PseudoTextConfig:
    tree: dict[str, Any] = {
        "kind": "gaussian",
        "mapper": "none",
        "noise_level": 3.0,
        "true_text_noise_level": 0.111,
        "pseudo_text_probability": probability,
        "caption_fraction": 1.0,
    }
    return PseudoTextConfig.model_validate(tree | changes)


def features(seed: int, rows: int = 64, dim: int = 512) -> torch.Tensor:
    drawn = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=1)


@pytest.mark.parametrize(("weight", "level"), [(0.75, 3.0), (0.1, 1 / 9)])
def test_noise_level_is_the_ratio_of_the_official_weights(weight: float, level: float) -> None:
    assert weight / (1 - weight) == pytest.approx(level)
    images, noise = features(0), torch.randn(64, 512)
    official = F.normalize((1 - weight) * images + weight * F.normalize(noise, dim=1), dim=1)
    assert torch.allclose(compute_pseudo_text(images, level, noise), official, atol=1e-6)


def test_expected_cosine() -> None:
    images = features(0, rows=2000)
    pseudo = compute_pseudo_text(images, 3.0, torch.randn(2000, 512))
    assert torch.allclose(pseudo.norm(dim=1), torch.ones(2000), atol=1e-5)
    cosine = (pseudo * images).sum(1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1 + 9), abs=0.01)


def test_feature_length_does_not_matter() -> None:
    images, noise = features(0), torch.randn(64, 512)
    ours = compute_pseudo_text(7 * images, 3.0, noise)
    assert torch.allclose(ours, compute_pseudo_text(images, 3.0, noise), atol=1e-6)
    assert torch.allclose(compute_pseudo_text(images, 0.0, noise), images, atol=1e-6)


def test_mixing_by_probability() -> None:
    images, texts = features(0, rows=4000, dim=16), features(1, rows=4000, dim=16)

    def condition(probability: float, **changes: Any) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(5)
        given = {"image_features": images, "text_features": texts, **changes}
        return compute_training_text(**given, config=config(probability), rng=seeded)

    pseudo, perturbed, mixed = condition(1.0), condition(0.0), condition(0.3)
    from_images = (mixed == pseudo).all(1)
    from_texts = (mixed == perturbed).all(1)
    assert (from_images ^ from_texts).all()
    assert from_images.float().mean().item() == pytest.approx(0.3, abs=0.03)
    zeros = torch.zeros_like(texts)
    assert torch.equal(condition(1.0, text_features=zeros), pseudo)
    assert torch.equal(condition(0.0, image_features=zeros), perturbed)
    assert torch.equal(condition(0.3), mixed), "the same seed gives the same features"


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_an_image_without_a_caption_gets_pseudo_text(probability: float) -> None:
    images, texts = features(0, rows=400, dim=16), features(1, rows=400, dim=16)
    texts[::2] = 0.0

    def condition(given: float) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(5)
        return compute_training_text(images, texts, config(given), seeded)

    pseudo, mixed = condition(1.0), condition(probability)
    assert torch.equal(mixed[::2], pseudo[::2])
    share = (mixed[1::2] == pseudo[1::2]).all(1).float().mean().item()
    assert share == pytest.approx(probability, abs=0.08)


def test_a_mapper_makes_the_pseudo_text_from_the_same_noise() -> None:
    images, texts = features(0, dim=16), features(1, dim=16)
    mapper = NoiseMapper(dim=16, hidden_dim=8)
    found = compute_training_text(
        images,
        texts,
        config(1.0, kind="mapper", mapper="data/mapper"),
        torch.Generator().manual_seed(5),
        mapper,
    )
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(found, mapper(images, noise))


def test_a_kind_without_its_mapper_is_refused() -> None:
    with pytest.raises(ValueError, match="name the folder of a trained one, such as data/mapper"):
        config(1.0, kind="mapper")
