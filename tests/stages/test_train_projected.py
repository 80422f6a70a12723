"""The train stage with heads on CLIP's maps: resume, bundles that go on, processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.families.lafite.networks import LafiteDiscriminator, ProjectedDiscriminator
from clipgan.models.bundle import load_bundle
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.checkpoint_export import export_checkpoint
from tests.stages.tiny_galip import TinyVitClip
from tests.stages.tiny_training import (
    assert_same_training,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)
from tests.stages.tiny_trainings import run_in_two_processes

pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")
PROJECTED: dict[str, Any] = {
    "train.lafite.discriminator.kind": "projected",
    "train.lafite.discriminator.projected.heads": 2,
    "train.lafite.discriminator.projected.channels": 8,
    "train.lafite.losses.adversarial": "hinge",
    "train.lafite.losses.mismatched_share": 0.5,
    "train.lafite.losses.discriminator_contrastive_weight": 0.0,
    "train.lafite.losses.r1_gamma": 0.0,
    "train.lafite.losses.reconstruction_fade_images": 64,
}
TRAININGS: dict[str, dict[str, Any]] = {
    name: PROJECTED
    | {
        # Reduced precision would hide what differs.
        "train.precision": "fp32",
        "train.lafite.losses.gather_negatives": True,
        "train.lafite.losses.path_length_interval": 2,
        "train.lafite.losses.adversarial": name,
    }
    for name in ("hinge", "relativistic")
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and an uninterrupted training; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, clip=TinyVitClip())
    with single_thread():
        run_training(root, tiny_params(PROJECTED))
    return root


def test_cut_after_every_checkpoint_ends_with_the_same_bits(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    save = CheckpointStore.save

    def save_then_die(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        save(store, images_seen, *rest)
        raise Killed

    monkeypatch.setattr(CheckpointStore, "save", save_then_die)
    for _ in range(4):
        with pytest.raises(Killed):
            run_training(copy, tiny_params(PROJECTED))
    monkeypatch.setattr(CheckpointStore, "save", save)
    report = run_training(copy, tiny_params(PROJECTED))
    assert report.resumed_from == 48
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_the_reconstruction_has_faded_when_the_history_says_so(world: Path) -> None:
    history = json.loads((world / "training" / "history.json").read_text())
    assert [row["images_seen"] for row in history if "reconstruction" in row] == [16, 32, 48, 64]


def test_a_bundle_brings_its_heads_and_other_starts_get_fresh_ones(copy: Path, world: Path) -> None:
    bundle = load_bundle(world / "training")
    assert isinstance(bundle.discriminator, ProjectedDiscriminator)
    slow = {
        "train.total_images": 8,
        "train.lafite.optimizer.generator_learning_rate": 1e-12,
        "train.lafite.optimizer.discriminator_learning_rate": 1e-12,
    }
    start = {"train.initial_weights": str(world / "training")}
    run_training(copy, tiny_params(PROJECTED | slow | start), output="on")
    on = load_bundle(copy / "on").discriminator
    assert on is not None
    for name, tensor in bundle.discriminator.named_parameters():
        torch.testing.assert_close(on.get_parameter(name), tensor, rtol=0, atol=1e-6)

    plain = {"train.lafite.discriminator.kind": "stylegan2"}
    run_training(copy, tiny_params(slow | start | plain), output="other", clip=TinyVitClip())
    assert isinstance(load_bundle(copy / "other").discriminator, LafiteDiscriminator)
    back = {"train.initial_weights": str(copy / "other")}
    run_training(copy, tiny_params(PROJECTED | slow | back), output="back")
    assert isinstance(load_bundle(copy / "back").discriminator, ProjectedDiscriminator)


def test_a_checkpoint_becomes_a_bundle_with_its_heads(world: Path, tmp_path: Path) -> None:
    checkpoint = max(world.glob("work/train/*/checkpoints/checkpoint-*"))
    export_checkpoint(checkpoint, tmp_path / "bundle")
    found = load_bundle(tmp_path / "bundle").discriminator
    wanted = load_bundle(world / "training").discriminator
    assert found is not None
    assert wanted is not None
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_equal_one_with_the_double_batch(copy: Path, world: Path) -> None:
    for name, changes in TRAININGS.items():
        run_training(copy, tiny_params(changes), output=name)
    two = copy / "two"
    run_in_two_processes(world, two, TRAININGS)
    for name in TRAININGS:
        assert_same_training(two / name, copy / name)
