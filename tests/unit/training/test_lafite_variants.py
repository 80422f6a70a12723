"""Every named variant of LAFITE's losses trains, and the optional terms are what they say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.errors import CheckpointError
from clipgan.families.lafite.training.start import build_lafite_networks, load_initial_weights
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.models.bundle import BundleInfo, save_bundle
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch, seed_step

SIDE, DIM, BATCH, CLIP_SIDE = 16, 7, 4, 20
SMALL: dict[str, Any] = {
    "precision": "fp32",
    "batch_size": BATCH,
    "resolution_px": SIDE,
    "augmentation.kind": "none",
    "lafite.generator.latent_dim": 8,
    "lafite.generator.style_dim": 8,
    "lafite.generator.text_hidden_dim": 8,
    "lafite.generator.mapping_layers": 2,
    "lafite.generator.channel_base": 64,
    "lafite.generator.channel_max": 8,
    "lafite.discriminator.channel_base": 64,
    "lafite.discriminator.channel_max": 8,
}
VARIANTS: list[dict[str, Any]] = [
    {"lafite.losses.contrastive": "sharpened"},
    {"lafite.losses.contrastive_axis": "text"},
    {"lafite.losses.contrastive_axis": "both"},
    {"lafite.losses.discriminator_image_contrastive_weight": 1.0},
    {"lafite.losses.clip_image_contrastive_weight": 1.0},
    {"lafite.discriminator.semantic_logit": "batch_sum"},
    {"lafite.discriminator.normalize_semantic": True},
    {"lafite.generator.style_input": "affine"},
    {"lafite.generator.text_concat_max_px": 8},
    {"lafite.generator.text_max_px": 8},
    {"lafite.clip_view.kind": "multi_crop", "lafite.clip_view.crops": 3},
    {"lafite.clip_view.small_images": "pad_white"},
    {"lafite.clip_view.antialias": False},
]


def _config(changes: dict[str, Any]) -> TrainConfig:
    return params_with({f"train.{key}": value for key, value in {**SMALL, **changes}.items()}).train


def _encode(images: Tensor) -> Tensor:
    """A CLIP of one random matrix."""
    matrix = torch.randn(DIM, 48, generator=torch.Generator().manual_seed(0))
    return F.normalize(F.adaptive_avg_pool2d(images, 4).flatten(1) @ matrix.t(), dim=1)


def _build(changes: dict[str, Any] | None = None) -> LafiteStep:
    config = _config(changes or {})
    return LafiteStep(build_lafite_networks(config, DIM), _encode, config, clip_side_px=CLIP_SIDE)


def _batch() -> Batch:
    return draw_batch(BATCH, SIDE, DIM, seed=1)


def _state(step: LafiteStep) -> dict[str, Tensor]:
    return {
        f"{network}.{name}": tensor.clone()
        for network in ("generator", "discriminator")
        for name, tensor in getattr(step, network).state_dict().items()
    }


def test_every_variant_trains_and_changes_the_result() -> None:
    plain = _build()
    plain.step(_batch(), 0, seed_step(0))
    results = [_state(plain)]
    for changes in VARIANTS:
        step = _build(changes)
        values = [step.step(_batch(), index * BATCH, seed_step(0)) for index in range(2)]
        assert all(math.isfinite(value) for one in values for value in one.values()), changes
        step = _build(changes)
        step.step(_batch(), 0, seed_step(0))
        state = _state(step)
        same = state.keys() == results[0].keys() and all(
            torch.equal(state[name], results[0][name]) for name in state
        )
        assert not same, f"{changes} is not heard"
    again = _build()
    again.step(_batch(), 0, seed_step(0))
    assert all(torch.equal(results[0][name], tensor) for name, tensor in _state(again).items())


def _generator_loss(changes: dict[str, Any]) -> tuple[LafiteStep, Tensor, Tensor, dict[str, float]]:
    """The generator's terms for fixed fakes and texts."""
    step = _build({"lafite.clip_view.kind": "full", **changes})
    draws = torch.Generator().manual_seed(2)
    fake = torch.rand(BATCH, 3, SIDE, SIDE, generator=draws) * 2 - 1
    texts = F.normalize(torch.randn(BATCH, DIM, generator=draws), dim=1)
    with torch.no_grad():
        loss = step.losses.compute_generator_loss(fake, _batch(), texts, seed_step(0))
    values = {name: float(value) for name, value in loss.terms.items()}
    return step, fake, texts, {**values, "total": float(loss.total)}


def test_image_terms_compare_fakes_with_their_real_images() -> None:
    changes = {
        "lafite.losses.discriminator_image_contrastive_weight": 3.0,
        "lafite.losses.clip_image_contrastive_weight": 5.0,
    }
    step, fake, _, values = _generator_loss(changes)
    plain = _generator_loss({})[3]
    temperature = step.config.lafite.losses.temperature
    with torch.no_grad():
        fakes = step.discriminator(fake).semantic_features
        reals = step.discriminator(_batch().images).semantic_features
        semantic = compute_contrastive_loss(reals, fakes, temperature).item()
        clip = compute_contrastive_loss(_encode(fake), _batch().image_features, temperature).item()
    assert values["generator_image_contrastive"] == pytest.approx(semantic, rel=1e-5)
    assert values["clip_image_contrastive"] == pytest.approx(clip, rel=1e-5)
    assert values["total"] == pytest.approx(plain["total"] + 3 * semantic + 5 * clip, rel=1e-5)


def test_an_image_term_needs_no_text_term() -> None:
    changes = {
        "lafite.losses.discriminator_contrastive_weight": 0.0,
        "lafite.losses.clip_contrastive_weight": 0.0,
        "lafite.losses.clip_image_contrastive_weight": 1.0,
    }
    values = _generator_loss(changes)[3]
    assert "clip_image_contrastive" in values
    assert "clip_contrastive" not in values


def test_image_terms_leave_the_discriminator_alone() -> None:
    step = _build({"lafite.losses.discriminator_image_contrastive_weight": 1.0})
    step._train_only(step.generator)
    fake = torch.rand(BATCH, 3, SIDE, SIDE, requires_grad=True)
    loss = step.losses.compute_generator_loss(fake, _batch(), _batch().text_features, seed_step(0))
    loss.total.backward()
    assert fake.grad is not None
    assert all(parameter.grad is None for parameter in step.discriminator.parameters())


def test_several_crops_are_averaged() -> None:
    changes = {"lafite.clip_view.kind": "multi_crop", "lafite.clip_view.crops": 3}
    step, fake, texts, values = _generator_loss(changes)
    random, contrasts = seed_step(0), []
    for _ in range(3):
        side = random.draw_integer(math.ceil(SIDE * step.config.lafite.clip_view.min_side), SIDE)
        top, left = (random.draw_integer(0, SIDE - side) for _ in range(2))
        view = fake[:, :, top : top + side, left : left + side]
        contrasts.append(
            compute_contrastive_loss(_encode(view), texts, step.config.lafite.losses.temperature)
        )
    wanted = torch.stack(contrasts).mean().item()
    assert values["clip_contrastive"] == pytest.approx(wanted, rel=1e-5)


def test_a_discriminator_goes_on_under_another_form_of_the_logit(tmp_path: Any) -> None:
    networks = build_lafite_networks(_config({}), DIM)
    info = BundleInfo(
        family="lafite", clip={"model": "tiny"}, resolution_px=SIDE, images_seen=0, provenance={}
    )
    save_bundle(tmp_path / "bundle", networks.generator, networks.discriminator, info, dtype="fp32")
    official = build_lafite_networks(
        _config({"seed": 1, "lafite.discriminator.semantic_logit": "batch_sum"}), DIM
    )
    load_initial_weights(official, tmp_path / "bundle", {"model": "tiny"})
    assert official.discriminator.semantic_logit == "batch_sum"
    taken, given = official.discriminator.state_dict(), networks.discriminator.state_dict()
    assert all(torch.equal(taken[name], given[name]) for name in given)
    affine = build_lafite_networks(_config({"lafite.generator.style_input": "affine"}), DIM)
    with pytest.raises(CheckpointError, match="style_input = latent, train asks for affine"):
        load_initial_weights(affine, tmp_path / "bundle", {"model": "tiny"})
