"""The contrastive term in both its forms, over both axes: the official arrays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipgan.config import ContrastiveAxis, ContrastiveKind
from clipgan.losses.contrastive import compute_contrastive_loss
from tests.numerics.lafite_cases import condition, synthesise
from tests.numerics.lafite_reference import (
    TAGS,
    arrays,
    build_discriminator,
    build_generator,
    draw,
    facts,
    inputs,
    unit,
)

AXES: dict[ContrastiveAxis, str] = {"image": "lam0.0", "text": "lam1.0", "both": "lam0.5"}
KINDS: dict[ContrastiveKind, str] = {"infonce": "infonce", "sharpened": "contra_official"}


@pytest.fixture(scope="module", params=TAGS)
def tag(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def image_features(tag: str) -> dict[str, Tensor]:
    """What the three contrastive terms compare with the text."""
    discriminator, texts = build_discriminator(tag), condition(tag, "paired")
    with torch.no_grad():
        features = {
            "real_d": discriminator(inputs(tag)["images"]).semantic_features,
            "gen_d": discriminator(synthesise(build_generator(tag), tag, texts)).semantic_features,
        }
    if tag == "r64":
        features["gen_clip"] = arrays()["r64.paired.clip_emb"]
    return features


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 0.3])
def test_small_case(temperature: float, kind: ContrastiveKind, axis: ContrastiveAxis) -> None:
    features = unit(draw("contra/a", (5, 64)))
    texts = unit(5.6 * features + draw("contra/b", (5, 64)))
    name = "official" if kind == "sharpened" else kind
    wanted = -arrays()[f"unit.contra.{name}.t{temperature}.{AXES[axis]}"].mean()
    loss = compute_contrastive_loss(3 * features, 0.5 * texts, temperature, kind=kind, axis=axis)
    assert loss.item() == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", KINDS)
def test_features_of_the_networks(
    tag: str, image_features: dict[str, Tensor], kind: ContrastiveKind, axis: ContrastiveAxis
) -> None:
    texts, temperature = condition(tag, "paired"), facts()["hyper"][tag]["temp"]
    for name, features in image_features.items():
        wanted = -arrays()[f"{tag}.paired.{KINDS[kind]}.{name}.{AXES[axis]}"].mean()
        loss = compute_contrastive_loss(features, texts, temperature, kind=kind, axis=axis)
        assert loss.item() == pytest.approx(float(wanted), rel=2e-5), name
