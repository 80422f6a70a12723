"""LAFITE's step with codes of the image in the latents of its warm-up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.data.batches import Batch
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.training.latent_codes import LatentCodes, fit_latent_codes
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch, seed_step
from tests.unit.training.test_lafite_step import (
    BATCH,
    CHANGES,
    CLIP_SIDE,
    DIM,
    SIDE,
    UNMIXED,
    Eye,
)


def _build(changes: dict[str, Any]) -> LafiteStep:
    config = params_with({**CHANGES, **{f"train.{key}": changes[key] for key in changes}}).train
    return LafiteStep(build_lafite_networks(config, DIM), Eye(), config, clip_side_px=CLIP_SIDE)


def _batch(seed: int = 0) -> Batch:
    return draw_batch(BATCH, SIDE, DIM, seed=seed)


def _spread_of_latents(codes: bool) -> float:
    """How far apart the pictures of two latents are, after a warm-up on black and white images.

    All of them have the same condition, so that nothing but a code says which is which.
    """
    changes = {
        "warm_up_images": 300 * BATCH,
        "lafite.optimizer.generator_learning_rate": 0.01,
        "pseudo_text.noise_level": 0.0,
    }
    step = _build(changes | UNMIXED)
    shades = torch.tensor([1.0, -1.0]).repeat(BATCH // 2).view(-1, 1, 1, 1)
    images = shades.expand(-1, 3, SIDE, SIDE).contiguous()
    same = F.normalize(torch.ones(BATCH, DIM), dim=1)
    batch = Batch(images, same, same)
    if codes:
        step.latent_codes = fit_latent_codes([(images, same)], 1)
    for index in range(300):
        step.step(batch, index * BATCH, seed_step(index * BATCH))
    latents = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pictures = step.generator(latents, same[:1].expand(16, -1), noise="const")
    return float(pictures.mean((1, 2, 3)).std())


def test_after_a_warm_up_with_codes_latents_decide_what_conditions_leave_open() -> None:
    without, with_codes = _spread_of_latents(False), _spread_of_latents(True)
    assert with_codes > 0.3 and with_codes > 3 * without


def _watch_latents(step: LafiteStep, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the mapping network is given from now on."""
    drawn, mapping = list[Tensor](), step.generator.mapping

    def watch(latents: Tensor) -> Tensor:
        drawn.append(latents)
        return mapping(latents)

    monkeypatch.setattr(step.generator, "mapping", watch)
    return drawn


def _fit(step: LafiteStep) -> LatentCodes:
    step.latent_codes = fit_latent_codes(
        [(_batch(i).images, _batch(i).image_features) for i in range(8)], 2
    )
    return step.latent_codes


@pytest.mark.parametrize("weight", [0.0, 50.0])
def test_codes_stand_in_latents_that_are_to_reconstruct(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in the warm-up, the first half afterwards, and none where nothing is reconstructed."""
    changes = {"warm_up_images": BATCH, "lafite.losses.reconstruction_weight": weight}
    step = _build(changes | UNMIXED)
    codes = _fit(step)
    drawn = _watch_latents(step, monkeypatch)
    for images_seen in (0, BATCH):
        step.step(_batch(), images_seen, seed_step(images_seen))
    coded_rows = {0: BATCH, BATCH: BATCH // 2 if weight else 0}
    for latents, (images_seen, coded) in zip(drawn, coded_rows.items(), strict=False):
        # The draws of a step come from its stream alone: condition, then latent.
        random = seed_step(images_seen)
        step.draw_conditions(_batch(), random)
        expected = step.draw_latents(BATCH, random)
        encoded = codes.encode(_batch().feature_images, _batch().image_features)
        expected[:coded, :2] = encoded[:coded]
        torch.testing.assert_close(latents, expected)


def test_images_of_free_latents_are_held_to_no_image() -> None:
    step = _build({"lafite.losses.reconstruction_weight": 50.0})
    batch, codes = _batch(), _fit(step).encode(_batch().images, _batch().image_features)
    half = BATCH // 2
    fake = batch.images.clone()
    fake[half:] = 0.0
    assert float(step.compute_reconstruction(fake, batch, codes[:half])) == 0.0
    assert float(step.compute_reconstruction(fake, batch, None)) > 0.1
