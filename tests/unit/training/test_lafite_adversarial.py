"""LAFITE's step under other adversarial losses, with a reconstruction that fades, and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.data.batches import Batch
from clipgan.families.lafite.training import losses as lafite_losses
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.training.state import StepLosses
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch, seed_step
from tests.unit.training.test_lafite_step import BATCH, CHANGES, CLIP_SIDE, DIM, SIDE, Eye

RELATIVISTIC = {
    "lafite.losses.adversarial": "relativistic",
    "lafite.discriminator.minibatch_std_group": 1,
}


def _build(changes: dict[str, Any]) -> LafiteStep:
    config = params_with({**CHANGES, **{f"train.{key}": changes[key] for key in changes}}).train
    return LafiteStep(build_lafite_networks(config, DIM), Eye(), config, clip_side_px=CLIP_SIDE)


def _batch(seed: int) -> Batch:
    return draw_batch(BATCH, SIDE, DIM, seed=seed)


def _run(step: LafiteStep, images_seen: int) -> dict[str, float]:
    return step.step(_batch(images_seen), images_seen, seed_step(images_seen)).read()


def test_reconstruction_fades_over_the_adversarial_images(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "warm_up_images": BATCH,
        "lafite.losses.reconstruction_weight": 8.0,
        "lafite.losses.reconstruction_fade_images": 4 * BATCH,
    }
    step, weights = _build(changes), []
    add = lafite_losses.LossSum.add

    def note(loss: lafite_losses.LossSum, name: str, value: Tensor, weight: float) -> None:
        if name == "reconstruction":
            weights.append(weight)
        add(loss, name, value, weight)

    monkeypatch.setattr(lafite_losses.LossSum, "add", note)
    for index in range(7):
        losses = _run(step, index * BATCH)
        assert ("reconstruction" in losses) is (index < 5)
    # The first step is the warm-up, which weighs it alone.
    assert weights == [8.0, 6.0, 4.0, 2.0]


def test_relativistic_pairs_have_r1_and_r2_on_the_lazy_steps() -> None:
    step = _build({**RELATIVISTIC, "lafite.losses.r1_interval": 3})
    found = [_run(step, index * BATCH) for index in range(4)]
    for name in ("r1_penalty", "r2_penalty"):
        assert [name in losses for losses in found] == [True, False, False, True]


def test_relativistic_penalties_weigh_half_gamma_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the closed form for a discriminator that is quadratic in the image."""
    step = _build(
        {
            **RELATIVISTIC,
            "lafite.losses.r1_gamma": 6.0,
            "lafite.losses.r1_interval": 5,
            "lafite.losses.discriminator_contrastive_weight": 0.0,
            "augmentation.kind": "none",
        }
    )
    weight, shown = nn.Parameter(torch.tensor(0.5)), []

    def discriminate(images: Tensor, *_: Any) -> tuple[None, Tensor]:
        shown.append(images)
        return None, weight / 2 * images.square().sum((1, 2, 3))

    monkeypatch.setattr(step.losses, "discriminate", discriminate)
    totals: dict[str, float] = {}

    def differentiate(total: Tensor, terms: dict[str, Tensor], phase: str) -> StepLosses:
        totals[phase] = total.item()
        return StepLosses(list(terms), torch.stack([*terms.values()]))

    monkeypatch.setattr(step.discriminator_updates, "apply", differentiate)
    values = _run(step, 0)
    # The gradient is w x: its square is w^2 |x|^2.
    real, fake = (0.25 * images.square().sum((1, 2, 3)).mean().item() for images in shown[-2:])
    assert torch.equal(shown[-2], _batch(0).images)
    assert values["r1_penalty"] == pytest.approx(real)
    assert values["r2_penalty"] == pytest.approx(fake)
    assert totals["r1"] == pytest.approx(6.0 / 2 * 5 * (real + fake))


def test_relativistic_losses_compare_real_and_generated_of_one_text() -> None:
    step = _build({**RELATIVISTIC, "augmentation.kind": "none"})
    batch, random = _batch(0), seed_step(0)
    fake, texts = _batch(1).images, batch.text_features
    _, real_logits = step.losses.discriminate(batch.images, texts, random)
    _, fake_logits = step.losses.discriminate(fake, texts, random)
    generator = step.losses.compute_generator_loss(fake, batch, texts, random)
    discriminator = step.losses.compute_discriminator_loss(fake, batch.images, texts, random)
    torch.testing.assert_close(
        generator.terms["generator_adversarial"], F.softplus(real_logits - fake_logits).mean()
    )
    torch.testing.assert_close(
        discriminator.terms["discriminator_adversarial"],
        F.softplus(fake_logits - real_logits).mean(),
    )


@pytest.mark.parametrize("kind", ["logistic", "hinge"])
def test_others_texts_take_their_share_of_the_negatives(kind: str) -> None:
    changes = {"lafite.losses.adversarial": kind, "lafite.losses.mismatched_share": 0.25}
    step = _build({**changes, "augmentation.kind": "none"})
    batch, fake = _batch(0), _batch(1).images
    texts, others = batch.text_features, step.mismatch(batch.text_features)
    negative = F.softplus if kind == "logistic" else lambda logits: F.relu(1.0 + logits)
    positive = (
        (lambda logits: F.softplus(-logits)) if kind == "logistic" else lambda x: F.relu(1.0 - x)
    )
    real, wrong, unread = (
        step.losses.discriminate(images, text, seed_step(0))[1]
        for images, text in ((batch.images, texts), (fake, texts), (batch.images, others))
    )
    expected = (
        positive(real).mean() + 0.75 * negative(wrong).mean() + 0.25 * negative(unread).mean()
    )
    terms = step.losses.compute_discriminator_loss(
        fake, batch.images, texts, seed_step(0), mismatched_texts=others
    ).terms
    torch.testing.assert_close(terms["discriminator_adversarial"], expected)
    assert "mismatched_logits" in _run(step, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"lafite.losses.path_length_interval": 2, "lafite.losses.r1_interval": 2},
        {**RELATIVISTIC, "lafite.losses.mismatched_share": 0.5, "lafite.losses.r1_interval": 2},
        {"lafite.losses.reconstruction_fade_images": 4 * BATCH},
    ],
    ids=["lazy phases", "relativistic", "fade"],
)
def test_captured_state_continues_bit_for_bit(changes: dict[str, Any]) -> None:
    whole = _build(changes)
    for index in range(6):
        _run(whole, index * BATCH)
    first = _build(changes)
    for index in range(3):
        _run(first, index * BATCH)
    state = {
        group: {name: tensor.clone() for name, tensor in tensors.items()}
        for group, tensors in first.capture_state().items()
    }
    second = _build({**changes, "seed": 5})
    _run(second, 0)
    second.restore_state(state)
    for index in range(3, 6):
        _run(second, index * BATCH)
    for group, tensors in whole.capture_state().items():
        found = second.capture_state()[group]
        assert tensors.keys() == found.keys()
        assert all(torch.equal(tensors[name], found[name]) for name in tensors), group
