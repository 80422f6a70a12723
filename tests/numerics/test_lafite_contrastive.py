"""The contrastive term in both its forms, over both axes: the official arrays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipgan.config import ContrastiveAxis, ContrastiveKind
from clipgan.data.batches import Batch
from clipgan.families.lafite.training.losses import LafiteLosses
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.random_draws import StepRandom
from clipgan.training.augment import build_augmenter
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
from tests.params import params_with

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


def write_out_official_term(first: Tensor, second: Tensor, tau: float, lam: float) -> Tensor:
    """The released code's contrastive term, from its description alone, in float64.

    C = cosines, rows ``first``, columns ``second``; s = exp(C / tau); p1 and p0 are the diagonals
    of the softmax of s over a row and over a column, times tau; the term is
    -mean(lam log p1 + (1 - lam) log p0). `iid` calls it with the discriminator's semantic features
    of the real images first and those of the generated ones second.
    """
    first, second = first.double(), second.double()
    num = len(first)
    total = torch.zeros((), dtype=torch.float64)
    lengths = [rows.square().sum(1).sqrt() for rows in (first, second)]
    sharpened = ((first @ second.T) / (lengths[0][:, None] * lengths[1][None]) / tau).exp()
    for i in range(num):
        own = sharpened[i, i].exp()
        row, column = own / sharpened[i].exp().sum(), own / sharpened[:, i].exp().sum()
        total = total + lam * (row * tau).log() + (1 - lam) * (column * tau).log()
    return -total / num


@pytest.mark.parametrize(("axis", "lam"), [("image", 0.0), ("text", 1.0), ("both", 0.5)])
def test_generated_images_with_their_real_ones(tag: str, axis: ContrastiveAxis, lam: float) -> None:
    """`iid`: no stored array has it, so value and gradient come from the equation, written out."""
    weight, texts, given = 3.0, condition(tag, "paired"), inputs(tag)
    discriminator = build_discriminator(tag)
    changes = {
        "train.lafite.losses.discriminator_contrastive_weight": 0.0,
        "train.lafite.losses.clip_contrastive_weight": 0.0,
        "train.lafite.losses.reconstruction_weight": 0.0,
        "train.lafite.losses.discriminator_image_contrastive_weight": weight,
        "train.lafite.losses.contrastive": "sharpened",
        "train.lafite.losses.contrastive_axis": axis,
        "train.augmentation.kind": "none",
    }
    config = params_with(changes).train
    losses = LafiteLosses(
        discriminator,
        lambda images: images,
        224,
        config,
        augmenter=build_augmenter(config.augmentation, 4, torch.device("cpu")),
        all_gather=lambda rows: rows,
    )
    with torch.no_grad():
        fakes = synthesise(build_generator(tag), tag, texts)
        real = discriminator(given["images"]).semantic_features
    fakes.requires_grad_()
    batch = Batch(given["images"], given["image_features"], given["text_features"])
    loss = losses.compute_generator_loss(fakes, batch, texts, StepRandom(torch.device("cpu")))
    generated = discriminator(fakes).semantic_features
    wanted = write_out_official_term(real, generated, config.lafite.losses.temperature, lam)
    term = loss.terms["generator_image_contrastive"]
    assert term.item() == pytest.approx(wanted.item(), rel=1e-5)
    adversarial = loss.terms["generator_adversarial"]
    assert loss.total.item() == pytest.approx((adversarial + weight * wanted).item(), rel=1e-5)
    (ours,) = torch.autograd.grad(term, fakes, retain_graph=True)
    (theirs,) = torch.autograd.grad(wanted, fakes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
