"""The warm-up by drifting: who is near, what is compared, and generators that spread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from clipgan.config.effective import select_training
from clipgan.data.batches import Batch, BatchLoader, TrainingData
from clipgan.errors import ClipError, DataError
from clipgan.training import drifting_warm_up
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.clip_maps import ClipMaps
from clipgan.training.distributed import SINGLE
from clipgan.training.drifting_warm_up import DriftingWarmUp, build_drifting, find_nearest
from tests.params import params_with
from tests.unit.training import tiny_galip_step
from tests.unit.training.step_parts import copy_state, find_changes, seed_step
from tests.unit.training.test_lafite_step import BATCH, DIM, SIDE, _build
from tests.unit.training.test_projected_step import TinyClip

CPU = torch.device("cpu")
DRIFTING: dict[str, Any] = {
    "train.warm_up_loss": "drifting",
    "train.drifting.latents": 4,
    "train.drifting.positives": 2,
    "train.drifting.depths": 2,
}


def _maps(depths: int = 2) -> ClipMaps:
    return ClipMaps(TinyClip(), depths)  # type: ignore[arg-type]


def _settings(**changes: Any) -> Any:
    prefixed = {f"train.drifting.{key}": value for key, value in changes.items()}
    return params_with({**DRIFTING, **prefixed}).train.drifting


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_nearest_are_those_of_the_largest_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    features = F.normalize(_draw(50, 6, seed=0), dim=1).numpy().astype(np.float16)
    cosines = features.astype(np.float64) @ features.astype(np.float64).T
    np.fill_diagonal(cosines, 2.0)
    expected = np.argsort(-cosines, axis=1)[:, :4]
    whole = find_nearest(features, 4, CPU)
    assert (whole == expected).all()
    monkeypatch.setattr(drifting_warm_up, "_BLOCK_ELEMENTS", 7 * 50)
    assert (find_nearest(features, 4, CPU) == expected).all()


def test_an_image_is_its_own_nearest_among_copies() -> None:
    features = np.ones((5, 4), np.float16) / 2
    assert find_nearest(features, 3, CPU)[:, 0].tolist() == [0, 1, 2, 3, 4]


def _make_loader(count: int = 12, **more: Any) -> BatchLoader:
    pixels = ((_draw(count, 3, SIDE, SIDE, seed=1) + 1) * 127.5).to(torch.uint8).numpy()
    features = F.normalize(_draw(count, DIM, seed=2), dim=1).numpy().astype(np.float16)
    data = TrainingData(pixels, features, features, np.arange(count + 1))
    return BatchLoader(data, BATCH, seed=0, mirror=True, device=CPU, **more)


def test_positives_are_the_images_of_the_batch_and_their_neighbours() -> None:
    loader = _make_loader()
    nearest = find_nearest(loader.data.image_features, 3, CPU)
    for seen in (0, 4, 8, 20):
        batch, found = loader.batch_at(seen), loader.load_neighbours(seen, nearest)
        assert torch.equal(found[:, 0], batch.feature_images)
        expected = batch.image_features @ torch.from_numpy(loader.data.image_features).float().T
        for row, images in zip(expected.topk(3).indices, found, strict=True):
            pixels = torch.from_numpy(loader.data.images_uint8[row.numpy()])
            torch.testing.assert_close(images, pixels.float() / 127.5 - 1)
    two = [_make_loader(rank=rank, num_processes=2).load_neighbours(4, nearest) for rank in (0, 1)]
    assert torch.equal(torch.stack(two, 1).flatten(0, 1), loader.load_neighbours(4, nearest))


def test_images_that_are_the_positives_stay_whatever_their_order() -> None:
    positives = _draw(3, 4, 3, SIDE, SIDE, seed=3)
    warm_up = DriftingWarmUp(_maps(), lambda seen: positives, _settings(), lambda mean: mean)
    copies = positives.flip(1).transpose(0, 1).flatten(0, 1)
    assert float(warm_up.compute_terms(copies, 0)["drift"]) < 1e-5
    # Of the other conditions they are not.
    others = positives.roll(1, 0).transpose(0, 1).flatten(0, 1)
    assert float(warm_up.compute_terms(others, 0)["drift"]) > 1e-3


def test_every_map_and_the_pixels_are_compared() -> None:
    """Whatever differs from the positives moves: a colour, a contrast, a place."""
    positives = _draw(2, 2, 3, SIDE, SIDE, seed=4)
    warm_up = DriftingWarmUp(_maps(), lambda seen: positives, _settings(), lambda mean: mean)
    fake = positives.repeat(1, 2, 1, 1, 1).transpose(0, 1).flatten(0, 1)
    fake = (fake * 0.5).requires_grad_()
    terms = warm_up.compute_terms(fake, 0)
    (gradient,) = torch.autograd.grad(terms["drifting"], fake)
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    # Thumbnails, and of two depths places, means and deviations.
    assert len(warm_up._describe(fake)) == 1 + 2 * 3


def test_two_processes_get_together_what_one_gets() -> None:
    """Scales and root mean squares are those of all samples, whoever has them."""
    positives, fake = _draw(2, 2, 3, SIDE, SIDE, seed=5), _draw(8, 3, SIDE, SIDE, seed=6)
    whole = DriftingWarmUp(_maps(), lambda seen: positives, _settings(), lambda mean: mean)
    expected = whole.compute_terms(fake, 0)
    meeting, sent = threading.Barrier(2, timeout=60), [torch.zeros(())] * 2
    maps = [_maps(), _maps()]

    def compute(rank: int) -> dict[str, Tensor]:
        def average(mean: Tensor) -> Tensor:
            sent[rank] = mean
            meeting.wait()
            both = (sent[0] + sent[1]) / 2
            meeting.wait()
            return both

        half = DriftingWarmUp(maps[rank], lambda seen: positives[rank::2], _settings(), average)
        return half.compute_terms(fake[rank::2], 0)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(compute, (0, 1))
    for name, value in expected.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, value)


def test_almost_equal_images_of_one_condition_go_to_different_positives() -> None:
    """Their pixels learn, in place of a generator; reconstruction would make both grey."""
    black_and_white = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, -1, 3, SIDE, SIDE)
    settings = _settings(latents=2)
    warm_up = DriftingWarmUp(_maps(), lambda seen: black_and_white, settings, lambda mean: mean)
    shades = torch.tensor([0.05, -0.05]).view(2, 1, 1, 1)
    pixels = shades.expand(-1, 3, SIDE, SIDE).clone().requires_grad_()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(warm_up.compute_terms(pixels, 0)["drifting"], pixels)
        pixels = (pixels - 0.05 * gradient.sign()).detach().requires_grad_()
    assert pixels[0].mean() > 0.4
    assert pixels[1].mean() < -0.4


@pytest.mark.parametrize("family", ["lafite", "galip"])
def test_the_warm_up_trains_the_generator_alone_and_then_ends(family: str) -> None:
    prefixed = {key.removeprefix("train."): value for key, value in DRIFTING.items()}
    changes = prefixed | {"warm_up_images": BATCH}
    step: AdversarialStep
    if family == "lafite":
        step = _build(changes)
        side, dim = SIDE, DIM
    else:
        step = tiny_galip_step.build_step(train=changes)
        side, dim = tiny_galip_step.SIDE, tiny_galip_step.EMBED_DIM
    positives = _draw(BATCH, 2, 3, side, side, seed=7)
    step.drifting = DriftingWarmUp(_maps(), lambda seen: positives, _settings(), lambda mean: mean)
    networks = step.discriminator, step.generator, step.generator_ema
    before = [copy_state(network) for network in networks]
    batch = Batch(
        positives[:, 0],
        F.normalize(_draw(BATCH, dim, seed=8), dim=1),
        F.normalize(_draw(BATCH, dim, seed=9), dim=1),
    )
    losses = step.step(batch, 0, seed_step(0)).read()
    assert set(losses) == {"drift", "drifting", "generator_gradient_norm"}
    resting, *learning = (find_changes(n, old) for n, old in zip(networks, before, strict=True))
    assert resting == set()
    assert all(learning)
    losses = step.step(batch, BATCH, seed_step(BATCH)).read()
    assert "drifting" not in losses and "generator_adversarial" in losses


def test_what_a_training_does_not_have_is_refused() -> None:
    config = params_with({**DRIFTING, "train.drifting.positives": 13}).train
    with pytest.raises(DataError, match=r"positives = 13 is more than the 12 images"):
        build_drifting(config, _make_loader(), TinyClip(), SINGLE)  # type: ignore[arg-type]
    config = params_with({**DRIFTING, "train.drifting.depths": 5}).train
    with pytest.raises(ClipError, match=r"train.drifting.depths = 5, but .* has 4 depths"):
        build_drifting(config, _make_loader(), TinyClip(), SINGLE)  # type: ignore[arg-type]
    clip = TinyClip()
    clip.clip.visual = torch.nn.Linear(2, 2)
    with pytest.raises(ClipError, match=r"Linear as image tower.*or warm_up_loss: reconstruction"):
        build_drifting(params_with(DRIFTING).train, _make_loader(), clip, SINGLE)  # type: ignore[arg-type]


def test_the_warm_up_needs_no_reconstruction_and_knows_no_codes() -> None:
    changes = {
        **DRIFTING,
        "train.warm_up_images": 100,
        "train.lafite.losses.reconstruction_weight": 0.0,
    }
    assert params_with(changes).train.warm_up_images == 100
    with pytest.raises(ValidationError, match=r"latent_codes = 8 .* set latent_codes to 0"):
        params_with({**changes, "train.latent_codes": 8})
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        params_with({**changes, "train.drifting.latents": 1})
    with pytest.raises(ValidationError, match="'reconstruction' or 'drifting'"):
        params_with({"train.warm_up_loss": "l1"})


def test_keys_of_drifting_decide_nothing_elsewhere() -> None:
    plain, drifting = params_with().train, params_with(DRIFTING).train
    other = {"train.drifting.positives": 3}
    assert select_training(params_with(other).train) == select_training(plain)
    assert select_training(params_with({**DRIFTING, **other}).train) != select_training(drifting)
