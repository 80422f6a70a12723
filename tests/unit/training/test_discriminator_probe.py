"""The probe tells a discriminator that knows its images from one that does not, and leaves no
trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipgan.data.batches import load_some_images
from clipgan.stages.train import _load_inputs
from clipgan.training import discriminator_probe
from clipgan.training.conditions import Conditions, build_conditions
from clipgan.training.discriminator_probe import DiscriminatorProbe
from tests.stages.tiny_training import (
    NUM_IMAGES,
    NUM_VALIDATION,
    SIDE_PX,
    TinyClip,
    build_world,
    tiny_params,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


class Judge(nn.Module):
    """Takes for real what ``knows`` does; counts its calls as a running statistic would."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return images


class FakeStep:
    """The part of a step that the probe asks: conditions and logits."""

    def __init__(self, config: Any, knows: Callable[[Tensor], Tensor]) -> None:
        self.config, self.device, self.knows = config, torch.device("cpu"), knows
        self.discriminator = Judge()
        self.sizes: list[int] = []
        self.texts: list[Tensor] = []

    def draw_conditions(self, batch: Any, random: Any) -> Tensor:
        self.texts.append(batch.text_features)
        drawn: Tensor = batch.image_features + torch.rand((), generator=random.rng)
        return drawn

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        assert len(images) == len(text_features)
        self.sizes.append(len(images))
        return self.knows(self.discriminator(images))


def build_conditions_of(world: Path) -> Conditions:
    params = tiny_params()
    clip: Any = TinyClip()
    inputs = _load_inputs(params.train, params.features, world / "images", world / "features", clip)
    return build_conditions(params.train, inputs.table, inputs.selected, clip, torch.device("cpu"))


def build_probe(
    world: Path, knows: Callable[[Tensor], Tensor], batch_size: int = 8
) -> tuple[DiscriminatorProbe, FakeStep]:
    step = FakeStep(tiny_params().train, knows)
    conditions = build_conditions_of(world)
    probe = DiscriminatorProbe(step, world / "images", conditions, batch_size)  # type: ignore[arg-type]
    return probe, step


def know_training_images(world: Path) -> Callable[[Tensor], Tensor]:
    _, pixels = load_some_images(world / "images", "train", SIDE_PX, 64)
    known = {image.tobytes() for image in pixels}

    def judge(images: Tensor) -> Tensor:
        back = ((images + 1) * 127.5).round().to(torch.uint8).numpy()
        return torch.tensor([3.0 if image.tobytes() in known else -3.0 for image in back])

    return judge


def test_a_discriminator_that_knows_its_images_by_heart(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discriminator_probe, "LEAST_IMAGES", NUM_VALIDATION)
    probe, step = build_probe(world, know_training_images(world))
    assert probe.measure() == {"training_logits_sign": 1.0, "held_out_logits_sign": -1.0}
    # 20 and 4 images in whole batches of the training's size.
    assert step.sizes == [8] * 4
    assert all(texts.any(dim=1).all() for texts in step.texts), "the first captions are there"


def test_too_few_held_out_images_say_nothing(world: Path) -> None:
    probe, _ = build_probe(world, know_training_images(world))
    assert probe.measure() == {"training_logits_sign": 1.0}


def test_it_touches_no_stream_no_statistic_and_no_mode(world: Path) -> None:
    probe, step = build_probe(world, lambda images: images.mean(dim=(1, 2, 3)))
    before = torch.get_rng_state()
    first, second = probe.measure(), probe.measure()
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert step.discriminator.training
    assert step.discriminator.calls == 0


def test_images_are_spread_over_the_split(world: Path) -> None:
    ids, pixels = load_some_images(world / "images", "train", SIDE_PX, 4)
    assert ids[0] == f"{NUM_VALIDATION:04d}"
    assert ids[-1] == f"{NUM_IMAGES - 1:04d}"
    assert pixels.shape == (4, 3, SIDE_PX, SIDE_PX)
    assert len(load_some_images(world / "images", "train", SIDE_PX, 64)[0]) == 20
    assert load_some_images(world / "images", "none", SIDE_PX, 4)[0] == []
