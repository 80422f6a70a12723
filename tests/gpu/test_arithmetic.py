"""A card computes what the CPU computes: networks, losses, a whole step, features, precisions.

A float32 sum of K products in another order differs by about sqrt(K) roundings of 2^-24 of its
largest partial sums; through L layers by L times as much. The largest networks here have 25 layers
of up to 2,304 products: 25 * 48 * 6e-8 = 7e-5 of a layer's largest value. Penalties and gradients
pass the layers up to four times, and differences of near values cancel a digit: 3e-3 and less.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.families.lafite.training.step import LafiteStep
from clipgan.images import to_unit_range
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.state import capture_optimizer
from tests.gpu.setups import (
    FAMILIES,
    Eye,
    build_step,
    describe_error,
    draw_everywhere_alike,
    place_batch,
    run_step,
)

FORWARD, BACKWARD = 2e-4, 3e-3
CPU = torch.device("cpu")


def _draw_images(step: AdversarialStep, device: torch.device) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    latents = torch.randn(8, step.generator.latent_dim, generator=draws).to(device)
    texts = F.normalize(torch.randn(8, step.generator.text_dim, generator=draws), dim=1).to(device)
    return step.generator(latents, texts), texts


def _compute_networks(family: str, device: torch.device, size_of: torch.device) -> dict[str, Any]:
    step: Any = build_step(family, device, size_of=size_of, augmentation__kind="none")
    images, texts = _draw_images(step, device)
    if family == "lafite":
        output = step.discriminator(images)
        logits = step.discriminator.compute_logits(output, texts)
    else:
        intermediates = step._encode_intermediates(images, StepRandom(device))
        sentences = step.discriminator.scale_texts(texts)
        logits = step.discriminator.compute_logits(step.discriminator(intermediates), sentences)
    logits.square().mean().backward()
    gradients = {
        f"{name}.{key}": weight.grad
        for name in ("generator", "discriminator")
        for key, weight in getattr(step, name).named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    return {"images": images, "logits": logits, "gradients": gradients}


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_and_their_gradients(family: str, device: torch.device) -> None:
    found = _compute_networks(family, device, device)
    wanted = _compute_networks(family, CPU, device)
    for name in ("images", "logits"):
        assert describe_error(found[name], wanted[name]) < FORWARD, name
    assert found["gradients"].keys() == wanted["gradients"].keys()
    for name, gradient in wanted["gradients"].items():
        assert describe_error(found["gradients"][name], gradient) < BACKWARD, name


def _compute_step(
    family: str, device: torch.device, size_of: torch.device, restart: Any
) -> tuple[dict[str, float], AdversarialStep]:
    restart()
    step = build_step(family, device, size_of=size_of)
    return run_step(step, device, 0).read(), step


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_of_a_whole_step(
    family: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every phase, lazy ones too: step 0 has them all."""
    restart = draw_everywhere_alike(monkeypatch)
    found, step = _compute_step(family, device, device, restart)
    wanted, reference = _compute_step(family, CPU, device, restart)
    assert found.keys() == wanted.keys()
    first = ("generator_", "clip_", "reconstruction") if family == "lafite" else ("matched", "fake")
    for name, value in wanted.items():
        # Adam's first update is the gradient's sign: where a gradient is nothing but rounding, a
        # weight moves the other way, and later phases see networks that differ by that.
        exact = name.startswith(first)
        tolerance = BACKWARD if exact else 0.05
        assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
    for name in ("generator_updates", "discriminator_updates"):
        moments = capture_optimizer(getattr(step, name).optimizer)
        for key, value in capture_optimizer(getattr(reference, name).optimizer).items():
            if key.endswith("exp_avg_sq") and value.max() > 0:
                # Roots of the mean squared gradients, of one or two phases.
                error = describe_error(moments[key].sqrt(), value.sqrt())
                assert error < (BACKWARD if family == "galip" else 0.1), f"{name} {key}"


def test_penalties(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """R1 and path length from equal weights: gradients of gradients."""
    restart = draw_everywhere_alike(monkeypatch)
    values: list[dict[str, float]] = []
    for place in (device, CPU):
        restart()
        step = build_step("lafite", place, size_of=device)
        assert isinstance(step, LafiteStep)
        batch, random = place_batch(step, place), StepRandom(place)
        random.seed(0)
        # Nothing but R1 and path length may move a weight before these are computed.
        for updates in (step.generator_updates, step.discriminator_updates):
            for group in updates.optimizer.param_groups:
                group["lr"] = 0.0
        found = step.step(batch, 0, random).read()
        values.append({name: found[name] for name in ("r1_penalty", "path_length_penalty")})
    assert values[0] == pytest.approx(values[1], rel=BACKWARD, abs=BACKWARD)


@pytest.mark.parametrize(
    ("dtype", "least"),
    # A bfloat16 has 8 bits: 2^-9 an operation, some dozen of them in a row, squared by the cosine.
    [(torch.float32, 0.9999), (torch.bfloat16, 0.999)],
)
def test_features_point_the_same_way(
    device: torch.device, dtype: torch.dtype, least: float
) -> None:
    images = to_unit_range(torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8))
    reference = Eye(device)
    reference.tower.visual.to(CPU)
    wanted = reference.encode_images(images)
    found = Eye(device, dtype=dtype).encode_images(images.to(device)).cpu()
    assert float(F.cosine_similarity(found, wanted).min()) >= least


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_precision_stays_finite_and_learns(
    family: str, precision: str, device: torch.device
) -> None:
    """Reconstruction alone, on one batch again and again: it must come down."""
    changes = {"warm_up_images": 10**6, "augmentation__kind": "none"}
    step = build_step(family, device, precision=precision, **changes)
    rates = step.generator_updates.optimizer.param_groups[0]
    rates["lr"] = 2e-3
    batch, random, found = place_batch(step, device), StepRandom(device), []
    for index in range(30):
        random.seed(0)
        found.append(step.step(batch, index * step.config.batch_size, random))
    values = [losses.read().get("reconstruction", math.nan) for losses in found]
    # fp16 may leave out its first updates until the loss scale fits.
    finite = [value for value in values if math.isfinite(value)]
    assert len(finite) >= (15 if precision == "fp16" else 30)
    assert finite[-1] < 0.9 * finite[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_game_in_half_precision_is_finite(
    family: str, precision: str, device: torch.device
) -> None:
    step = build_step(family, device, precision=precision)
    for index in range(4):
        losses = run_step(step, device, index).read()
        assert all(math.isfinite(value) for value in losses.values())
    weights = [*step.generator.parameters(), *step.discriminator.parameters()]
    assert all(bool(torch.isfinite(weight).all()) for weight in weights)
