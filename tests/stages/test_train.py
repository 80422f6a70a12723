"""Stage train: resume is bit-exact, outputs are whole, bad input is refused by name."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError, ClipganError, DataError, TrainingDivergedError
from clipgan.families.lafite.training import losses as lafite_losses
from clipgan.families.lafite.training import step as lafite_step
from clipgan.models.bundle import load_bundle, load_bundle_info
from clipgan.training import checkpoint, output
from clipgan.training.checkpoint import CheckpointStore
from tests.stages.tiny_training import (
    TinyClip,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and an uninterrupted training; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    with single_thread():
        run_training(root, tiny_params())
    return root


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_output_is_a_bundle_with_reports_and_samples(world: Path) -> None:
    folder = world / "training"
    bundle = load_bundle(folder)
    assert bundle.discriminator is not None
    assert bundle.info.images_seen == 96
    assert bundle.info.clip == TinyClip().fingerprint
    assert all(torch.isfinite(tensor).all() for tensor in bundle.generator.state_dict().values())
    assert sorted(p.name for p in (folder / "samples").iterdir()) == [
        f"images-{seen:08d}.png" for seen in (0, 48, 96)
    ]
    report = _read(folder / "training.json")
    assert report["images_seen"] == 96
    assert report["num_training_images"] == 20, "held-out images were trained on, or some left out"
    history = _read(folder / "history.json")
    assert [row["images_seen"] for row in history] == [0, 16, 32, 48, 64, 80, 96]
    assert {"path_length_penalty", "r1_penalty", "clip_contrastive"} <= history[1].keys()
    measured = {"sample_diversity", "prompt_difference", "sample_retrieval", "training_logits_sign"}
    assert [row["images_seen"] for row in history if measured <= row.keys()] == [0, 48, 96]
    assert _read(folder / "mlflow.json") == {"run_id": None, "run_key": None}
    assert not (folder / "initial").exists()


def test_same_seed_same_bits_other_seed_others(copy: Path, world: Path) -> None:
    run_training(copy, tiny_params())
    assert hash_training(copy / "training") == hash_training(world / "training")
    run_training(copy, tiny_params({"train.seed": 1}), output="other")
    assert hash_training(copy / "other") != hash_training(world / "training")


def _start(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.stages.tiny_training", str(root)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def _list_checkpoints(root: Path) -> list[str]:
    """Names, those of unfinished ones too."""
    return [path.name for path in root.glob("work/train/*/checkpoints/*")]


@pytest.mark.slow
def test_killed_anywhere_and_restarted_ends_with_the_same_bits(copy: Path, world: Path) -> None:
    """SIGKILL at random moments around the writing of checkpoints, then once to the end."""
    delays = random.Random(0)
    for _ in range(5):
        before = _list_checkpoints(copy)
        process = _start(copy)
        while process.poll() is None and _list_checkpoints(copy) == before:
            time.sleep(0.001)
        time.sleep(delays.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended by itself: kill earlier"
    assert _start(copy).wait() == 0
    assert _read(copy / "training" / "training.json")["resumed_from"] > 0
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_cut_at_every_checkpoint_ends_with_the_same_bits(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies right after each checkpoint, and in the middle of the next one."""

    class Killed(BaseException):
        pass

    save = CheckpointStore.save

    def save_then_die(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        folder = save(store, images_seen, *rest)
        half = folder.with_name(f".{folder.name}.partial")
        half.mkdir()
        (half / "generator.safetensors").write_bytes(b"half")
        raise Killed

    resumes = 0
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_then_die)
        while not (copy / "training").exists():
            try:
                run_training(copy, tiny_params())
            except Killed:
                resumes += 1
    assert resumes == 7  # at 0, 16, ... 96 images
    assert hash_training(copy / "training") == hash_training(world / "training")


def _stop_at(monkeypatch: pytest.MonkeyPatch, images_seen: int) -> None:
    """Ctrl-C during the step at ``images_seen``."""
    step = lafite_step.LafiteStep.step

    def interrupted(self: Any, batch: Any, seen: int, draws: Any) -> dict[str, float]:
        if seen == images_seen:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, seen, draws)

    monkeypatch.setattr(lafite_step.LafiteStep, "step", interrupted)


def test_ctrl_c_keeps_the_step_and_resumes(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _stop_at(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            run_training(copy, tiny_params())
    assert not (copy / "training").exists()
    report = run_training(copy, tiny_params())
    assert report.resumed_from == 48
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_half_a_checkpoint_means_the_one_before_and_is_said(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        _stop_at(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            run_training(copy, tiny_params())
    newest = max(copy.glob("work/train/*/checkpoints/checkpoint-*"))
    weights = newest / "generator_optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    report = run_training(copy, tiny_params())
    assert report.resumed_from == 32
    assert f"{newest.name} is damaged" in caplog.text
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_full_disk_at_a_checkpoint_is_said_and_costs_nothing(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint._write

    def write_until_full(path: Path, data: bytes) -> str:
        if "48" in path.parent.name:
            path.write_bytes(data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", write_until_full)
        with pytest.raises(CheckpointError, match=r"48 images.*No space left.*000032 is intact"):
            run_training(copy, tiny_params())
    assert run_training(copy, tiny_params()).resumed_from == 32
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_full_disk_at_the_end_is_said_and_nothing_is_trained_twice(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(output, "save_bundle", fail)
        with pytest.raises(CheckpointError, match=r"No space left.*same command again"):
            run_training(copy, tiny_params())
    assert not (copy / "training").exists()
    assert run_training(copy, tiny_params()).resumed_from == 96
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_other_parameters_do_not_resume(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _stop_at(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            run_training(copy, tiny_params())
    report = run_training(copy, tiny_params({"train.lafite.losses.temperature": 0.4}))
    assert report.resumed_from is None


def test_monitoring_changes_no_bit(copy: Path, world: Path) -> None:
    changes = {
        "monitoring.checkpoint_interval_images": 40,
        "monitoring.sample_interval_images": 8,
        "monitoring.log_interval_images": 96,
    }
    run_training(copy, tiny_params(changes))
    for name in ("generator.safetensors", "discriminator.safetensors"):
        assert hash_file(copy / "training" / name) == hash_file(world / "training" / name)


def test_nan_twice_stops_with_advice_and_keeps_the_old_output(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world / "training", copy / "training")
    monkeypatch.setattr(
        lafite_losses,
        "compute_r1_penalty",
        lambda logits, images, scale: logits * float("nan"),
    )
    with pytest.raises(TrainingDivergedError, match=r"r1_penalty became nan at 0 images"):
        run_training(copy, tiny_params())
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_fine_tuning_starts_from_the_bundle_and_keeps_a_copy(copy: Path, world: Path) -> None:
    start = world / "training"
    report = run_training(
        copy,
        tiny_params(
            {
                "train.initial_weights": str(start),
                "train.lafite.optimizer.generator_learning_rate": 1e-12,
                "train.lafite.optimizer.discriminator_learning_rate": 1e-12,
            }
        ),
    )
    assert report.initial_images_seen == 96
    assert load_bundle_info(copy / "training").images_seen == 192
    initial = copy / "training" / "initial"
    assert hash_file(initial / "generator.safetensors") == hash_file(
        start / "generator.safetensors"
    )
    # The grid before the first step is the grid of the bundle's last one.
    assert hash_file(copy / "training" / "samples" / "images-00000000.png") == hash_file(
        start / "samples" / "images-00000096.png"
    )
    before, after = load_bundle(initial), load_bundle(copy / "training")
    for name in ("generator", "discriminator"):
        old, new = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        learned = {key for key in old if key != "latent_average"}
        assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in learned)


def test_a_longer_training_passes_through_the_shorter_ones_weights(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step depends on ``total_images``: a run cut short is the run that was to be short."""
    passed: dict[str, torch.Tensor] = {}
    save = CheckpointStore.save

    def keep(store: CheckpointStore, images_seen: int, progress: Any, tensors: Any) -> None:
        if images_seen == 96:
            passed.update({name: t.clone() for name, t in tensors["generator_ema"].items()})
        save(store, images_seen, progress, tensors)

    monkeypatch.setattr(CheckpointStore, "save", keep)
    run_training(copy, tiny_params({"train.total_images": 128}))
    ended = load_bundle(world / "training").generator.state_dict()
    assert passed.keys() == ended.keys()
    assert all(torch.equal(passed[name], ended[name]) for name in ended)


def _refuse(
    root: Path, error: type[ClipganError], message: str, changes: dict[str, Any], **more: Any
) -> None:
    with pytest.raises(error, match=message):
        run_training(root, tiny_params(changes), **more)
    assert not (root / "training").exists()


def test_bundle_of_another_width_is_refused(copy: Path, world: Path) -> None:
    changes = {
        "train.initial_weights": str(world / "training"),
        "train.lafite.generator.style_dim": 16,
    }
    _refuse(copy, CheckpointError, r"style_dim = 8, train asks for 16.*none", changes)


def test_bundle_for_another_clip_is_refused(copy: Path, world: Path) -> None:
    bundle = copy / "bundle"
    shutil.copytree(world / "training", bundle)
    info = _read(bundle / "bundle.json")
    info["clip"]["weights_sha256"] = "1" * 64
    (bundle / "bundle.json").write_text(json.dumps(info))
    changes = {"train.initial_weights": str(bundle)}
    _refuse(copy, CheckpointError, r"weights_sha256 = 1{64}", changes)


def test_bundle_of_another_precision_is_welcome(copy: Path, world: Path) -> None:
    bundle = copy / "bundle"
    shutil.copytree(world / "training", bundle)
    info = _read(bundle / "bundle.json")
    info["clip"]["precision"] = "bf16"
    (bundle / "bundle.json").write_text(json.dumps(info))
    report = run_training(copy, tiny_params({"train.initial_weights": str(bundle)}))
    assert report.initial_images_seen == 96


def test_features_of_another_clip_are_refused(copy: Path) -> None:
    other = TinyClip()
    other.weights = "2" * 64
    _refuse(copy, ClipganError, "2{64}", {}, clip=other)


def test_more_images_in_a_batch_than_there_are_is_refused(copy: Path) -> None:
    _refuse(copy, DataError, r"batch_size = 24.*20 .*lower it", {"train.batch_size": 24})


def test_larger_images_than_stored_are_refused(copy: Path) -> None:
    _refuse(copy, DataError, r"resolution_px = 16.*8 px.*ingest", {"train.resolution_px": 16})


def test_deleted_shard_is_refused(copy: Path) -> None:
    next((copy / "images").glob("*.parquet")).unlink()
    _refuse(copy, DataError, r"images-00000\.parquet", {})
