"""GALIP's step: who is updated when, what has a graph, what is refused, what it depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.data.batches import Batch
from clipgan.errors import ConfigError
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.galip.training.step import GalipStep
from clipgan.random_draws import StepRandom
from clipgan.training.distributed import Processes
from tests.galip_parts import EMBED_DIM, build_tower, galip_config
from tests.unit.training.step_parts import copy_state, find_changes, guard_phases, seed_step
from tests.unit.training.tiny_galip_step import (
    BATCH,
    build_step,
    only_diffaugment,
    run_step,
    tiny_batch,
)


def test_every_weight_learns_clip_never_and_every_term_is_reported() -> None:
    step = build_step()
    tower = copy_state(step.tower.visual)
    before = (
        copy_state(step.generator),
        copy_state(step.discriminator),
        copy_state(step.generator_ema),
    )
    # Gates and affines start at zero: what is behind them learns from the second step on.
    losses = [run_step(step, index * BATCH) for index in range(3)][-1]
    assert set(losses) == {
        "matched_hinge",
        "mismatched_hinge",
        "fake_hinge",
        "discriminator_adversarial",
        "ma_gp",
        "matched_logits",
        "mismatched_logits",
        "fake_logits",
        "discriminator_gradient_norm",
        "generator_adversarial",
        "clip_similarity",
        "generator_gradient_norm",
    }
    assert find_changes(step.generator, before[0]) == set(before[0])
    assert find_changes(step.discriminator, before[1]) == set(before[1])
    assert find_changes(step.generator_ema, before[2]) == set(before[2])
    assert find_changes(step.tower.visual, tower) == set()
    assert all(p.grad is None and not p.requires_grad for p in step.tower.visual.parameters())


@pytest.mark.parametrize(
    ("weight", "terms"),
    [
        ("losses.ma_gp_weight", {"ma_gp"}),
        ("losses.clip_similarity_weight", {"clip_similarity"}),
    ],
)
def test_weight_zero_leaves_a_term_out(weight: str, terms: set[str]) -> None:
    assert set(run_step(build_step())) - set(run_step(build_step({weight: 0.0}))) == terms


def test_warm_up_is_reconstruction_alone_and_leaves_the_discriminator_fresh() -> None:
    step = build_step({"losses.reconstruction_weight": 0.0}, {"warm_up_images": BATCH})
    before = (
        copy_state(step.discriminator),
        copy_state(step.generator),
        copy_state(step.generator_ema),
    )
    assert set(run_step(step)) == {"reconstruction", "generator_gradient_norm"}
    assert find_changes(step.discriminator, before[0]) == set()
    assert find_changes(step.generator, before[1])
    assert find_changes(step.generator_ema, before[2])
    after = run_step(step, BATCH)
    assert "matched_hinge" in after and "reconstruction" not in after


def test_reconstruction_pulls_fakes_to_the_images_of_their_conditions() -> None:
    changes = {"optimizer.generator_learning_rate": 0.005}
    step = build_step(changes, {"warm_up_images": 60 * BATCH})
    distances = [_run_with_plain_images(step, index * BATCH) for index in range(60)]
    assert distances[-1] < 0.7 * distances[0]


def _run_with_plain_images(step: GalipStep, images_seen: int) -> float:
    """A step on the same images again, each of one colour."""
    batch = tiny_batch()
    batch = dataclasses.replace(batch, images=batch.images[..., :1, :1].expand_as(batch.images))
    return step.step(batch, images_seen, seed_step(images_seen))["reconstruction"]


def test_each_update_leaves_the_other_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    step = build_step()
    guard_phases(step, monkeypatch)
    before = copy_state(step.generator), copy_state(step.discriminator)
    run_step(step)
    assert find_changes(step.generator, before[0]) != set()
    assert find_changes(step.discriminator, before[1]) != set()


def test_no_graph_through_clip_for_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    step = build_step()
    seen: list[tuple[str, bool]] = []
    for name in ("encode", "encode_intermediates"):
        method = getattr(step.tower, name)

        def recording(*given: Any, _name: str = name, _method: Any = method) -> Any:
            output = _method(*given)
            intermediates = output if isinstance(output, Tensor) else output.intermediates
            seen.append((_name, intermediates.requires_grad))
            return output

        monkeypatch.setattr(step.tower, name, recording)
    run_step(step)
    # One pass over fakes with a graph serves both networks; reals stop at the last tapped block.
    assert seen == [("encode", True), ("encode_intermediates", False)]


def test_augmented_fakes_are_judged_but_whole_ones_compared_with_their_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = build_step(train=only_diffaugment("translation"))
    given: list[Tensor] = []
    prepare = step.tower.prepare

    def recording(images: Tensor, clip_input: Any) -> Tensor:
        given.append(images.detach())
        return prepare(images, clip_input)

    monkeypatch.setattr(step.tower, "prepare", recording)
    run_step(step)
    whole, moved, real = given
    assert not torch.equal(whole, moved)
    assert not torch.equal(real, tiny_batch().images)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_sentences_are_unit_features_times_the_gain(
    probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With captions and without: pseudo text stands where the sentence feature stood."""
    step = build_step(
        {"text_gain": 3.0},
        {
            "pseudo_text.pseudo_text_probability": probability,
            "pseudo_text.noise_level": 0.0,
            "pseudo_text.true_text_noise_level": 0.0,
        },
    )
    seen: list[Tensor] = []
    compute = step.discriminator.compute_logits

    def recording(features: Tensor, sentences: Tensor) -> Tensor:
        seen.append(sentences.detach())
        return compute(features, sentences)

    monkeypatch.setattr(step.discriminator, "compute_logits", recording)
    run_step(step)
    batch = tiny_batch()
    wanted = batch.image_features if probability else batch.text_features
    matched, mismatched, fake, generator = seen
    assert torch.allclose(matched, 3.0 * wanted, atol=1e-5)
    assert torch.allclose(mismatched, 3.0 * wanted.roll(-1, 0), atol=1e-5)
    assert torch.equal(fake, matched)
    assert torch.equal(generator, matched)


def test_language_free_training_never_looks_at_captions() -> None:
    results = []
    for scale in (1.0, float("nan")):
        step = build_step(train={"pseudo_text.pseudo_text_probability": 1.0})
        batch = tiny_batch()
        spoiled = Batch(batch.images, batch.image_features, batch.text_features * scale)
        step.step(spoiled, 0, seed_step(0))
        results.append(copy_state(step.generator))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_adam_is_the_papers() -> None:
    step = build_step()
    group = step.discriminator_updates.optimizer.param_groups[0]
    assert (group["lr"], group["betas"]) == (0.004, (0.0, 0.9))
    own = {id(p) for p in step.discriminator.parameters()}
    assert {id(p) for p in group["params"]} == own
    group = step.generator_updates.optimizer.param_groups[0]
    assert group["lr"] == 0.001
    assert {id(p) for p in group["params"]} == {id(p) for p in step.generator.parameters()}


def test_average_follows_and_can_be_switched_off() -> None:
    step = build_step(train={"ema.half_life_kimg": 1.0e-9})
    run_step(step)
    assert find_changes(step.generator_ema, copy_state(step.generator)) == set()
    slow = build_step(train={"ema.half_life_kimg": 1.0})
    before = copy_state(slow.generator)
    run_step(slow)
    for name, tensor in slow.generator_ema.state_dict().items():
        decay = 0.5 ** (BATCH / 1000)
        wanted = decay * before[name] + (1 - decay) * slow.generator.state_dict()[name]
        assert torch.allclose(tensor, wanted, atol=1e-6)


def test_a_batch_of_one_is_refused() -> None:
    step = build_step()
    batch = tiny_batch()
    single = Batch(batch.images[:1], batch.image_features[:1], batch.text_features[:1])
    random = StepRandom(torch.device("cpu"))
    random.seed(0)
    with pytest.raises(ConfigError, match=r"train\.batch_size = 1"):
        step.step(single, 0, random)


def test_taps_and_features_that_do_not_fit_the_clip_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tapped_blocks = \[1, 4\]: tiny-vit has 4 blocks"):
        build_step({"discriminator.tapped_blocks": [1, 4]})
    step = build_step(tower=build_tower(embed_dim=EMBED_DIM + 1))
    with pytest.raises(ConfigError, match="12 wide, the generator was made for 13"):
        run_step(step)


def test_step_does_not_touch_the_global_random_state() -> None:
    step = build_step()
    before = torch.get_rng_state()
    run_step(step)
    assert torch.equal(torch.get_rng_state(), before)


def test_networks_are_a_function_of_the_seed_alone() -> None:
    def weight(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        networks = build_galip_networks(galip_config(), build_tower(), resolution_px=8, seed=seed)
        return networks.generator.merge.weight

    assert torch.equal(weight(0, 1), weight(0, 2))
    assert not torch.equal(weight(0, 1), weight(1, 1))


def test_generator_learns_to_please_clip() -> None:
    """With CLIP's term alone, fakes come closer to their texts."""
    step = build_step(
        {
            "losses.clip_similarity_weight": 1000.0,
            "losses.ma_gp_weight": 0.0,
            "optimizer.generator_learning_rate": 0.01,
        },
        {"pseudo_text.noise_level": 0.0},
    )
    values = [run_step(step, 0, seed=index)["clip_similarity"] for index in range(40)]
    assert sum(values[-5:]) / 5 > sum(values[:5]) / 5 + 0.2


class CountingProcesses(Processes):
    """One process that notes what would be averaged with others."""

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        averaged.append(sum(tensor.numel() for tensor in tensors))


averaged: list[int] = []


def test_only_weights_that_learn_are_averaged_over_processes() -> None:
    averaged.clear()
    step = build_step(processes=CountingProcesses())
    run_step(step)
    networks = (step.discriminator, step.generator)
    # The discriminator's update, then the generator's: neither CLIP nor the other network.
    assert averaged == [sum(p.numel() for p in network.parameters()) for network in networks]
