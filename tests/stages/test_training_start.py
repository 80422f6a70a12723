"""Before the first step: does it fit on the disk, and which training is not gone on with."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from clipgan.artifacts import measure_size
from clipgan.errors import CheckpointError
from clipgan.families.lafite.training import step as lafite_step
from clipgan.families.registry import find_family
from clipgan.training.disk_space import estimate_checkpoint_bytes
from clipgan.training.power_averages import estimate_snapshots_bytes
from tests.stages.tiny_training import (
    TinyClip,
    build_world,
    choose_clip,
    run_training,
    tiny_params,
)

pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")

DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


BUILD_NETWORKS = find_family("lafite").load("training").build_networks


def stop_training(root: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that ends in its first step, after its first checkpoint."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lafite_step.LafiteStep, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            run_training(root, tiny_params(changes))


def test_a_training_that_starts_over_says_so_and_what_changed(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_training(copy, {}, monkeypatch)
    (before,) = (copy / "work" / "train").iterdir()
    assert "starting at image 0" not in capsys.readouterr().out
    # The same one again: nothing to say.
    stop_training(copy, {}, monkeypatch)
    assert "starting at image 0" not in capsys.readouterr().out
    stop_training(copy, {"train.seed": 1, "train.lafite.losses.temperature": 0.5}, monkeypatch)
    assert (
        "parameters changed (train.seed 0 -> 1, train.lafite.losses.temperature 0.2 -> 0.5): "
        f"starting at image 0 (the training of before stays in {before}; `clipgan clean` "
        "removes it)"
    ) in capsys.readouterr().out


def test_a_change_of_other_things_is_said_too(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_training(copy, {}, monkeypatch)
    monkeypatch.setattr("clipgan.training.fingerprint.hash_sources", lambda *modules: "other code")
    stop_training(copy, {}, monkeypatch)
    said = capsys.readouterr().out
    assert "code, features or initial weights changed: starting at image 0" in said


@pytest.mark.parametrize("snapshot_interval_images", [0, 32])
def test_the_estimate_is_what_a_training_takes(copy: Path, snapshot_interval_images: int) -> None:
    params = tiny_params({"train.ema.snapshot_interval_images": snapshot_interval_images})
    run_training(copy, params)
    found = max(copy.glob("work/train/*/checkpoints/checkpoint-*"))
    networks = BUILD_NETWORKS(params.train, choose_clip(params))
    # JSON and the headers of tiny tensors weigh here, and nowhere else.
    tensors = sum(
        path.stat().st_size - int.from_bytes(path.read_bytes()[:8], "little") - 8
        for path in found.glob("*.safetensors")
    )
    # Adam's step counts, one float32 a parameter.
    estimate = estimate_checkpoint_bytes(networks, params.train)
    assert 0 <= tensors - estimate < 0.02 * tensors + 4 * 200
    assert measure_size(found) > tensors
    averages = sum(
        weights.numel() * weights.element_size()
        for path in copy.glob("training/ema_snapshots/*.safetensors")
        for name, weights in load_file(path).items()
        if not name.startswith("buffers/")
    )
    assert averages == estimate_snapshots_bytes(networks.generator, params.train)
    assert bool(averages) == bool(snapshot_interval_images)


@pytest.mark.parametrize("snapshot_interval_images", [0, 32])
@pytest.mark.parametrize("short_by", [0, 1])
def test_a_disk_that_is_too_small_is_said_before_any_step(
    short_by: int, snapshot_interval_images: int, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "monitoring.keep_checkpoints": 2,
        "train.ema.snapshot_interval_images": snapshot_interval_images,
    }
    params = tiny_params(changes)
    networks = BUILD_NETWORKS(params.train, TinyClip())
    weights = [*networks.generator_ema.state_dict().values()]
    weights += networks.discriminator.state_dict().values()
    needed = 3 * estimate_checkpoint_bytes(networks, params.train) + 20 * 3 * 8 * 8
    needed += sum(tensor.numel() * tensor.element_size() for tensor in weights)
    needed += estimate_snapshots_bytes(networks.generator, params.train)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, needed - short_by))
    if not short_by:
        stop_training(copy, changes, monkeypatch)
        return
    with pytest.raises(CheckpointError, match=r"3 checkpoints of .*kB are free: free some"):
        run_training(copy, params)
    assert not list(copy.glob("work/train/*/checkpoints"))


def test_what_an_interrupted_run_left_is_not_asked_for_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(copy, tiny_params())
    params = tiny_params()
    networks = BUILD_NETWORKS(params.train, TinyClip())
    # Room for the one checkpoint that is not there and the bundle, not for three.
    free = 2 * estimate_checkpoint_bytes(networks, params.train)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, free))
    assert run_training(copy, tiny_params()).resumed_from == 96
