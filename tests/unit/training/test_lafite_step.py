"""LAFITE's step: phases and schedules, who is updated when, lazy corrections, state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.training import losses as lafite_losses
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.random_draws import StepRandom
from clipgan.training.state import NonFiniteLossError, StepLosses, capture_optimizer
from tests.params import params_with
from tests.unit.training.step_parts import (
    copy_state,
    draw_batch,
    find_changes,
    guard_phases,
    seed_step,
)

SIDE, DIM, BATCH, CLIP_SIDE = 8, 6, 4, 12
CHANGES: dict[str, Any] = {
    "train.precision": "fp32",
    "train.batch_size": BATCH,
    "train.resolution_px": SIDE,
    "train.lafite.generator.latent_dim": 8,
    "train.lafite.generator.style_dim": 8,
    "train.lafite.generator.text_hidden_dim": 8,
    "train.lafite.generator.mapping_layers": 2,
    "train.lafite.generator.channel_base": 64,
    "train.lafite.generator.channel_max": 8,
    "train.lafite.discriminator.channel_base": 64,
    "train.lafite.discriminator.channel_max": 8,
    "train.lafite.losses.reconstruction_weight": 50.0,
}

UNMIXED = {"lafite.losses.style_mixing_probability": 0.0}


def _config(changes: dict[str, Any] | None = None) -> TrainConfig:
    prefixed = {f"train.{key}": value for key, value in (changes or {}).items()}
    return params_with({**CHANGES, **prefixed}).train


class Eye(nn.Module):
    """A CLIP of one matrix that remembers the sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(DIM, 48, generator=draws)
        self.sides: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sides.append(images.shape[-1])
        assert images.shape[-2] == images.shape[-1]
        pixels = F.adaptive_avg_pool2d(images, 4).flatten(1)
        return F.normalize(pixels @ self.matrix.t(), dim=1)


def _build(changes: dict[str, Any] | None = None, eye: Eye | None = None) -> LafiteStep:
    config = _config(changes)
    networks = build_lafite_networks(config, DIM)
    return LafiteStep(networks, eye or Eye(), config, clip_side_px=CLIP_SIDE)


def _batch(seed: int = 0) -> Batch:
    return draw_batch(BATCH, SIDE, DIM, seed=seed)


def _run(step: LafiteStep, images_seen: int, seed: int = 0) -> dict[str, float]:
    return step.step(_batch(images_seen), images_seen, seed_step(images_seen, seed=seed)).read()


def test_lazy_phases_run_on_their_steps() -> None:
    step = _build({"lafite.losses.path_length_interval": 2, "lafite.losses.r1_interval": 3})
    path_length, r1 = [], []
    for index in range(7):
        losses = _run(step, index * BATCH)
        if "path_length_penalty" in losses:
            path_length.append(index)
        if "r1_penalty" in losses:
            r1.append(index)
    assert path_length == [0, 2, 4, 6]
    assert r1 == [0, 3, 6]


def test_every_weight_learns_and_every_term_is_reported() -> None:
    step = _build()
    before = (
        copy_state(step.generator),
        copy_state(step.discriminator),
        copy_state(step.generator_ema),
    )
    losses = _run(step, 0)
    assert set(losses) == {
        "generator_adversarial",
        "generator_contrastive",
        "clip_contrastive",
        "reconstruction",
        "generator_gradient_norm",
        "path_length_penalty",
        "path_length_gradient_norm",
        "discriminator_adversarial",
        "discriminator_contrastive",
        "real_logits",
        "fake_logits",
        "discriminator_gradient_norm",
        "r1_penalty",
        "r1_gradient_norm",
    }
    constant = {name for name in before[0] if name.endswith("noise_constant")}
    assert find_changes(step.generator, before[0]) == set(before[0]) - constant
    assert find_changes(step.discriminator, before[1]) == set(before[1])
    assert find_changes(step.generator_ema, before[2]) == set(before[2]) - constant
    assert torch.equal(step.generator_ema.latent_average, step.generator.latent_average)


def test_warm_up_is_reconstruction_alone_and_leaves_the_discriminator_fresh() -> None:
    step = _build({"warm_up_images": 2 * BATCH})
    networks = step.discriminator, step.generator, step.generator_ema
    before = [copy_state(network) for network in networks]
    for index in range(2):
        losses = _run(step, index * BATCH)
        assert "reconstruction" in losses
        assert not any(name.startswith(("discriminator", "r1", "path")) for name in losses)
    resting, *learning = (find_changes(n, old) for n, old in zip(networks, before, strict=True))
    assert resting == set()
    assert all("constant" in changes for changes in learning)
    assert "discriminator_adversarial" in _run(step, 2 * BATCH)


@pytest.mark.parametrize(
    ("weight", "terms"),
    [
        (
            "lafite.losses.discriminator_contrastive_weight",
            {"generator_contrastive", "discriminator_contrastive"},
        ),
        ("lafite.losses.clip_contrastive_weight", {"clip_contrastive"}),
        ("lafite.losses.reconstruction_weight", {"reconstruction"}),
        ("lafite.losses.path_length_weight", {"path_length_penalty", "path_length_gradient_norm"}),
        ("lafite.losses.r1_gamma", {"r1_penalty", "r1_gradient_norm"}),
    ],
)
def test_weight_zero_leaves_a_term_out(weight: str, terms: set[str]) -> None:
    assert set(_run(_build(), 0)) - set(_run(_build({weight: 0.0}), 0)) == terms


def test_adam_is_corrected_for_lazy_phases() -> None:
    rates = {
        "lafite.optimizer.generator_learning_rate": 0.0025,
        "lafite.optimizer.discriminator_learning_rate": 0.002,
    }
    lazy = {"lafite.losses.path_length_interval": 4, "lafite.losses.r1_interval": 16}
    step = _build({**rates, **lazy})
    generator = step.generator_updates.optimizer.param_groups[0]
    discriminator = step.discriminator_updates.optimizer.param_groups[0]
    assert generator["lr"] == pytest.approx(0.0025 * 4 / 5)
    assert generator["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert discriminator["lr"] == pytest.approx(0.002 * 16 / 17)
    assert discriminator["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    plain = _build({**rates, "lafite.losses.path_length_weight": 0.0}).generator_updates
    assert plain.optimizer.param_groups[0]["lr"] == 0.0025


def test_each_phase_changes_and_differentiates_its_own_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = _build()
    guard_phases(step, monkeypatch)
    before = copy_state(step.generator), copy_state(step.discriminator)
    _run(step, 0)
    assert find_changes(step.generator, before[0]) > {"latent_average"}
    assert find_changes(step.discriminator, before[1]) != set()


def test_r1_gradient_is_the_penalty_times_half_gamma_and_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the closed form for a discriminator that is linear in the image."""
    r1 = {"lafite.losses.r1_gamma": 6.0, "lafite.losses.r1_interval": 5}
    plain = {"lafite.losses.discriminator_contrastive_weight": 0.0, "augmentation.kind": "none"}
    step = _build({**r1, **plain})
    weight = nn.Parameter(torch.full((3, SIDE, SIDE), 0.5))
    logits = lambda images, *_: (None, (images * weight).sum((1, 2, 3)))  # noqa: E731
    monkeypatch.setattr(step.losses, "discriminate", logits)
    gradients: dict[str, Tensor] = {}

    def differentiate(total: Tensor, terms: dict[str, Tensor], phase: str) -> StepLosses:
        (gradients[phase],) = torch.autograd.grad(total, weight)
        return StepLosses(list(terms), torch.stack([*terms.values()]))

    monkeypatch.setattr(step.discriminator_updates, "apply", differentiate)
    assert _run(step, 0)["r1_penalty"] == pytest.approx(3 * SIDE * SIDE * 0.25)
    # d/dw of 6 / 2 * 5 * sum(w^2) is 30 w = 15.
    torch.testing.assert_close(gradients["r1"], torch.full_like(weight, 15.0))


def test_path_length_uses_its_share_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    step = _build({"lafite.losses.path_length_batch_fraction": 0.5})
    counts = []
    synthesis = step.generator.synthesis

    def counting(styles: Tensor, *arguments: Any, **named: Any) -> Tensor:
        counts.append(len(styles))
        return synthesis(styles, *arguments, **named)

    monkeypatch.setattr(step.generator, "synthesis", counting)
    _run(step, 0)
    assert counts == [BATCH, BATCH // 2, BATCH]


def test_an_odd_batch_gives_the_path_length_the_smaller_half() -> None:
    """B // 2 in the released code."""
    step = _build({"batch_size": 7, "lafite.discriminator.minibatch_std_group": 7, **UNMIXED})
    seen = _record_mapped(step)
    step.step(draw_batch(7, SIDE, DIM), 0, seed_step(0))
    assert [len(styles) for styles in seen] == [7, 3, 7]


@pytest.mark.parametrize(("form", "phases"), [("per_step", 1), ("per_phase", 3)])
def test_the_mean_latent_moves_once_a_step_or_in_every_phase(form: str, phases: int) -> None:
    """Released code: generator, path length (half of the batch), discriminator; 0.995 is kept."""
    step = _build({"lafite.latent_average": form, **UNMIXED})
    seen = _record_mapped(step)
    _run(step, 0)
    assert [len(styles) for styles in seen] == [BATCH, BATCH // 2, BATCH]
    expected = torch.zeros_like(step.generator.latent_average)
    for styles in seen[:phases]:
        expected = 0.995 * expected + 0.005 * styles.mean(0)
    torch.testing.assert_close(step.generator.latent_average, expected)
    torch.testing.assert_close(step.generator_ema.latent_average, expected)


def _record_mapped(step: LafiteStep) -> list[Tensor]:
    """What the mapping gives from now on."""
    seen: list[Tensor] = []
    step.generator.mapping_network.register_forward_hook(
        lambda _, __, output: seen.append(output.detach().clone())
    )
    return seen


@pytest.mark.parametrize(("probability", "mixed"), [(0.0, False), (1.0, True)])
def test_style_mixing(probability: float, mixed: bool) -> None:
    step = _build({"lafite.losses.style_mixing_probability": probability})
    random = StepRandom(torch.device("cpu"))
    cutoffs = set()
    for seed in range(40):
        random.seed(seed)
        styles = step._draw_styles(3, random, update_average=False)
        same = (styles == styles[:, :1]).all(-1).all(0)
        assert bool(same.all()) is not mixed
        cutoffs.add(int(same.sum()))
    if mixed:
        assert cutoffs == set(range(1, step.generator.num_layers))


def test_infinite_loss_stops_before_any_update_of_its_network() -> None:
    step = _build({"lafite.losses.path_length_weight": 0.0})
    step.losses.encode_images = lambda images: images.mean((2, 3)).repeat(1, 2) * float("inf")
    before = copy_state(step.generator)
    with pytest.raises(NonFiniteLossError) as stop:
        _run(step, 0)
    assert stop.value.name == "clip_contrastive"
    assert find_changes(step.generator, before) <= {"latent_average"}
    moments = capture_optimizer(step.generator_updates.optimizer)
    assert not any(bool(t.any()) for t in moments.values())
    assert all(p.grad is None for p in step.generator.parameters())


def test_infinite_gradient_of_a_finite_loss_stops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    step = _build({"lafite.losses.path_length_weight": 0.0})
    # sqrt has an infinite slope at zero.
    monkeypatch.setattr(
        lafite_losses,
        "compute_generator_loss",
        lambda _, logits, __: ((logits - logits.detach()) ** 2).sum().sqrt(),
    )
    with pytest.raises(NonFiniteLossError) as stop:
        _run(step, 0)
    assert stop.value.name == "generator_gradient_norm"


def test_step_does_not_touch_the_global_random_state() -> None:
    step = _build()
    before = torch.get_rng_state()
    _run(step, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_networks_are_a_function_of_the_seed_alone() -> None:
    constants = []
    for global_seed, changes in ((1, {}), (2, {}), (2, {"seed": 1})):
        torch.manual_seed(global_seed)
        constants.append(build_lafite_networks(_config(changes), DIM).generator.constant)
    assert torch.equal(constants[0], constants[1])
    assert not torch.equal(constants[0], constants[2])


def test_generator_learns_to_please_clip() -> None:
    """With CLIP's term alone, fakes come closer to their texts than chance."""
    step = _build(
        {
            "lafite.losses.clip_contrastive_weight": 10.0,
            "lafite.losses.discriminator_contrastive_weight": 0.0,
            "lafite.losses.reconstruction_weight": 0.0,
            "lafite.losses.path_length_weight": 0.0,
            "lafite.losses.r1_gamma": 0.0,
            "lafite.clip_view.kind": "full",
            "pseudo_text.noise_level": 0.0,
            "lafite.optimizer.generator_learning_rate": 0.01,
        }
    )
    values = [_run(step, 0, seed=index)["clip_contrastive"] for index in range(60)]
    assert sum(values[-5:]) / 5 < 0.8 * sum(values[:5]) / 5
