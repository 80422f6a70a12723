"""LAFITE's step against heads on CLIP's maps: one look, who learns, the shared terms, state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.clip.hybrid import attach_stem
from clipgan.errors import ClipError
from clipgan.families.lafite.training.projected_step import ProjectedStep
from clipgan.families.lafite.training.start import build_lafite_networks, set_precision
from clipgan.images import CLIP_MEAN, CLIP_STD, to_clip_input
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite
from clipgan.training.clip_maps import ClipMaps
from tests.galip_parts import build_tower
from tests.params import params_with
from tests.unit.training.step_parts import (
    copy_state,
    draw_batch,
    find_changes,
    guard_phases,
    seed_step,
)
from tests.unit.training.test_lafite_step import BATCH, CHANGES, SIDE

DIM, HEADS, DEPTH = 12, 2, 4
PROJECTED: dict[str, Any] = {
    **CHANGES,
    "train.lafite.discriminator.kind": "projected",
    "train.lafite.discriminator.projected.heads": HEADS,
    "train.lafite.discriminator.projected.channels": 8,
    "train.lafite.losses.adversarial": "hinge",
    "train.lafite.losses.mismatched_share": 0.5,
    "train.lafite.losses.discriminator_contrastive_weight": 0.0,
    "train.lafite.losses.r1_gamma": 0.0,
    "train.lafite.losses.reconstruction_weight": 0.0,
}


class TinyClip:
    """A random ViT of open_clip that counts the batches it saw."""

    side_px = 32

    def __init__(self) -> None:
        self.fingerprint = {"model": "tiny-vit"}
        self.visual: Any = build_tower(embed_dim=DIM, depth=DEPTH).visual
        self.clip = SimpleNamespace(visual=self.visual)
        self.seen: list[int] = []

    def encode_images(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        pixels = to_clip_input(images.float(), self.side_px, CLIP_MEAN, CLIP_STD)
        return F.normalize(self.visual(pixels), dim=1)


def _build(changes: dict[str, Any] | None = None, clip: TinyClip | None = None) -> ProjectedStep:
    prefixed = {f"train.{key}": value for key, value in (changes or {}).items()}
    config = params_with({**PROJECTED, **prefixed}).train
    maps = ClipMaps(clip or TinyClip(), config.lafite.discriminator.projected.heads)  # type: ignore[arg-type]
    networks = build_lafite_networks(config, DIM, maps.count_channels())
    set_precision(networks, config)
    return ProjectedStep(networks, maps, config)


def _run(step: ProjectedStep, images_seen: int, seed: int = 0) -> dict[str, float]:
    batch = draw_batch(BATCH, SIDE, DIM, seed=images_seen)
    return step.step(batch, images_seen, seed_step(images_seen, seed=seed)).read()


def test_every_weight_learns_and_every_term_is_reported() -> None:
    step = _build({"lafite.losses.reconstruction_weight": 50.0})
    before = copy_state(step.generator), copy_state(step.discriminator)
    losses = _run(step, 0)
    assert set(losses) == {
        "discriminator_adversarial",
        "real_logits",
        "fake_logits",
        "mismatched_logits",
        "discriminator_gradient_norm",
        "generator_adversarial",
        "clip_contrastive",
        "reconstruction",
        "generator_gradient_norm",
        "path_length_penalty",
        "path_length_gradient_norm",
    }
    constant = {name for name in before[0] if name.endswith("noise_constant")}
    assert find_changes(step.generator, before[0]) == set(before[0]) - constant
    assert find_changes(step.discriminator, before[1]) == set(before[1])


def test_each_phase_changes_and_differentiates_its_own_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = _build()
    guard_phases(step, monkeypatch)
    _run(step, 0)


def test_clip_looks_at_every_batch_once() -> None:
    clip = TinyClip()
    step = _build(clip=clip)
    clip.seen.clear()
    _run(step, 0)
    assert clip.seen == [BATCH, BATCH]


def test_hooks_leave_nothing_behind() -> None:
    clip = TinyClip()
    step = _build(clip=clip)
    _run(step, 0)
    assert all(not block._forward_hooks for block in clip.visual.transformer.resblocks)


def test_maps_are_the_patch_tokens_behind_evenly_chosen_blocks() -> None:
    clip = TinyClip()
    images = draw_batch(3, SIDE, DIM).images
    view = ClipMaps(clip, HEADS).encode(images)  # type: ignore[arg-type]
    pixels = to_clip_input(images, clip.side_px, CLIP_MEAN, CLIP_STD)
    expected = clip.visual.forward_intermediates(pixels, indices=[1, 3])
    for found, wanted in zip(view.maps, expected["image_intermediates"], strict=True):
        torch.testing.assert_close(found, wanted)
    wanted = F.normalize(expected["image_features"], dim=1)
    torch.testing.assert_close(view.features, wanted)


def test_the_built_in_trunk_gives_its_maps_at_four_strides() -> None:
    clip = TinyClip()
    clip.side_px = 96
    clip.visual = build_tower(side_px=96, patch_px=32, embed_dim=DIM).visual
    clip.clip = SimpleNamespace(visual=clip.visual)
    trunk = load_efficientnet_lite("lite2")
    attach_stem(clip.visual, trunk)
    images = draw_batch(2, SIDE, DIM).images
    view = ClipMaps(clip, 4).encode(images)  # type: ignore[arg-type]
    expected = [(24, 24), (48, 12), (120, 6), (352, 3)]
    assert [tuple(maps.shape[1:]) for maps in view.maps] == [(c, s, s) for c, s in expected]
    torch.testing.assert_close(view.features, clip.encode_images(images))
    assert ClipMaps(clip, 2).count_channels() == [48, 352]  # type: ignore[arg-type]


def test_a_trunk_that_cannot_be_read_is_refused() -> None:
    clip = TinyClip()
    with pytest.raises(ClipError, match="heads = 5, but the image trunk of tiny-vit has 4 depths"):
        ClipMaps(clip, 5)  # type: ignore[arg-type]
    clip.clip = SimpleNamespace(visual=torch.nn.Linear(2, 2))
    with pytest.raises(ClipError, match="'tiny-vit' has a Linear as image tower"):
        ClipMaps(clip, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("adversarial", ["logistic", "hinge", "relativistic"])
def test_the_losses_are_means_over_all_places(adversarial: str) -> None:
    """Written out from the networks' own outputs."""
    changes = {"lafite.losses.adversarial": adversarial, "augmentation.kind": "none"}
    step = _build(changes)
    step.discriminator.eval()  # without power iterations a second call gives the same
    batch, texts = draw_batch(BATCH, SIDE, DIM), draw_batch(BATCH, SIDE, DIM).text_features
    fake = draw_batch(BATCH, SIDE, DIM, seed=1).images
    view, real_maps = step.clip.encode(fake), step.clip.encode(batch.images).maps
    others = step.mismatch(texts)
    assert torch.equal(others, texts.roll(-1, 0))
    losses = step.losses
    found = losses.compute_discriminator_loss(view.maps, real_maps, texts, others).total
    found_g = losses.compute_generator_loss(view, real_maps, batch, texts).terms

    network = step.discriminator
    real, wrong, unread = (
        network.compute_logits(network(maps), text)
        for maps, text in ((real_maps, texts), (view.maps, texts), (real_maps, others))
    )
    assert real.shape == (BATCH, HEADS * 16)
    match adversarial:
        case "logistic":
            terms = [F.softplus(-real) + F.softplus(x) for x in (wrong, unread)]
            expected_g = F.softplus(-wrong)
        case "hinge":
            terms = [F.relu(1 - real) + F.relu(1 + x) for x in (wrong, unread)]
            expected_g = -wrong
        case _:
            terms = [F.softplus(x - real) for x in (wrong, unread)]
            expected_g = F.softplus(real - wrong)
    torch.testing.assert_close(found, (terms[0].mean() + terms[1].mean()) / 2)
    torch.testing.assert_close(found_g["generator_adversarial"], expected_g.mean())


@pytest.mark.parametrize(
    ("weight", "terms"),
    [
        ("lafite.losses.clip_contrastive_weight", {"clip_contrastive"}),
        ("lafite.losses.path_length_weight", {"path_length_penalty", "path_length_gradient_norm"}),
        ("lafite.losses.mismatched_share", {"mismatched_logits"}),
    ],
)
def test_weight_zero_leaves_a_term_out(weight: str, terms: set[str]) -> None:
    assert set(_run(_build(), 0)) - set(_run(_build({weight: 0.0}), 0)) == terms


def test_warm_up_leaves_the_heads_fresh() -> None:
    changes = {"warm_up_images": BATCH, "lafite.losses.reconstruction_weight": 50.0}
    step = _build(changes)
    before = copy_state(step.discriminator)
    assert set(_run(step, 0)) == {"reconstruction", "generator_gradient_norm"}
    assert find_changes(step.discriminator, before) == set()
    assert "discriminator_adversarial" in _run(step, BATCH)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_captured_state_continues_bit_for_bit(precision: str) -> None:
    changes = {"precision": precision, "lafite.losses.path_length_interval": 2}
    whole, first, second = _build(changes), _build(changes), _build({**changes, "seed": 5})
    for index in range(3):
        _run(whole, index * BATCH)
        _run(first, index * BATCH)
    state = {
        group: {name: tensor.clone() for name, tensor in tensors.items()}
        for group, tensors in first.capture_state().items()
    }
    # The vectors of the power iterations are state, too.
    assert any(name.endswith("_u") for name in state["discriminator"])
    _run(second, 0)
    second.restore_state(state)
    for index in range(3, 6):
        assert _run(second, index * BATCH) == _run(whole, index * BATCH)
    for group, tensors in whole.capture_state().items():
        found = second.capture_state()[group]
        assert tensors.keys() == found.keys()
        assert all(torch.equal(tensors[name], found[name]) for name in tensors), group


def test_asking_the_heads_for_logits_leaves_their_state_alone() -> None:
    """The power iterations move in training mode only."""
    step, batch = _build(), draw_batch(BATCH, SIDE, DIM)
    before = copy_state(step.discriminator)
    step.discriminator.eval()
    with torch.no_grad():
        logits = step.compute_logits(batch.images, batch.text_features)
    assert logits.shape == (BATCH,)
    assert find_changes(step.discriminator, before) == set()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.02), ("bf16", 0.12)])
def test_losses_and_gradients_are_those_of_fp32(precision: str, tolerance: float) -> None:
    expected = _run(_build(), 0)
    step = _build({"precision": precision})
    for updates in (step.generator_updates, step.discriminator_updates):
        if updates.loss_scale is not None:
            updates.loss_scale.value.fill_(128.0)
    found = _run(step, 0)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=tolerance, abs=0.02), name


def test_the_heads_convolve_in_the_chosen_precision() -> None:
    step = _build({"precision": "bf16"})
    maps = step.clip.encode(draw_batch(BATCH, SIDE, DIM).images).maps
    features = step.discriminator(maps)
    assert {each.dtype for each in features} == {torch.bfloat16}
    texts = draw_batch(BATCH, SIDE, DIM).text_features
    assert step.discriminator.compute_logits(features, texts).dtype == torch.float32


@torch.no_grad()
def test_the_heads_see_how_strong_the_maps_are() -> None:
    """A generator that overdoes its contrasts must not look the same to them."""
    step = _build()
    step.discriminator.eval()
    batch = draw_batch(BATCH, SIDE, DIM)
    maps = step.clip.encode(batch.images).maps
    logits = [
        step.discriminator.compute_logits(
            step.discriminator([each * scale for each in maps]), batch.text_features
        )
        for scale in (1.0, 3.0)
    ]
    assert float((logits[1] - logits[0]).std()) > 0.5 * float(logits[0].std())


def test_the_heads_learn_to_tell_real_from_generated() -> None:
    step = _build(
        {
            "lafite.optimizer.discriminator_learning_rate": 0.01,
            "lafite.optimizer.generator_learning_rate": 1e-6,
            "augmentation.kind": "none",
        }
    )
    values = [_run(step, 0, seed=index) for index in range(30)]
    gaps = [value["real_logits"] - value["fake_logits"] for value in values]
    assert abs(gaps[0]) < 0.5
    assert sum(gaps[-5:]) / 5 > 1.0
