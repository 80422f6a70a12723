"""Tracking beside a real training: whatever becomes of MLflow, the training ends as without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.resume_state import has_waiting
from clipgan.run_logger import RunLogger
from clipgan.stages.train import train
from clipgan.tracking.mlflow_store import open_client
from clipgan.tracking.spool import find_spools
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.snapshot import Snapshot
from tests.mlflow_stores import TrackingServer, list_points
from tests.stages.tiny_training import (
    TinyClip,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 240.0
NOT_REPEATABLE = {"train/images_per_second", "train/seconds", "train/peak_memory_mib"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and an uninterrupted training that nobody tracks; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    with single_thread():
        run_training(root, tiny_params())
    return root


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The world without its training."""
    for name in ("images", "features"):
        shutil.copytree(world / name, tmp_path / name)
    return tmp_path


class RaisingLogger:
    """Fails at everything."""

    @property
    def run_id(self) -> str | None:
        raise ConnectionError("no id")

    @property
    def run_key(self) -> str | None:
        raise ConnectionError("no key")

    def log_params(self, params: Mapping[str, object]) -> None:
        raise ConnectionError("no parameters")

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        raise ConnectionError("no metrics")

    def log_file(self, path: Path, folder: str) -> None:
        raise ConnectionError("no files")

    def flush(self) -> None:
        raise ConnectionError("no flush")


def test_a_logger_that_fails_everywhere_costs_the_training_nothing(
    copy: Path, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken: RunLogger = RaisingLogger()
    with single_thread():
        run_training(copy, tiny_params(), logger=broken)
    assert hash_training(copy / "training") == hash_training(world / "training")
    for what in ("parameters", "metrics", "files", "flush", "id", "key"):
        assert f"ConnectionError: no {what}" in caplog.text


def test_an_evaluation_that_fails_costs_the_training_nothing(
    copy: Path, world: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    found_saved: list[bool] = []
    save = CheckpointStore.save

    def note(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        saved.append(images_seen)
        return save(store, images_seen, *rest)

    def run_out_of_memory(snapshot: Snapshot) -> None:
        found_saved.append(snapshot.images_seen in saved)
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(CheckpointStore, "save", note)
    params = tiny_params(
        {
            "monitoring.evaluation_interval_images": 32,
            "monitoring.checkpoint_interval_images": 96,
        }
    )
    with single_thread():
        train(
            params.train,
            monitoring=params.monitoring,
            features_config=params.features,
            images=copy / "images",
            features=copy / "features",
            output=copy / "training",
            work=copy / "work" / "train",
            clip=TinyClip(),  # type: ignore[arg-type]
            evaluate=run_out_of_memory,
        )
    assert found_saved == [True, True, True], "the checkpoint comes before the evaluation"
    assert "not evaluated after 32 images" in caplog.text
    assert "20 GiB" in caplog.text
    assert hash_training(copy / "training") == hash_training(world / "training")


def start(root: Path, tracking_uri: str, changes: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.stages.tracked_training"]
    command += [str(root), tracking_uri, json.dumps(changes)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ.copy())


def wait_for_checkpoint(process: subprocess.Popen[bytes], root: Path, images_seen: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before: make it longer"
        names = [path.name for path in root.glob("work/train/*/checkpoints/checkpoint-*")]
        if any(int(name.rpartition("-")[2]) >= images_seen for name in names):
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint at {images_seen}")


def read_repeatable(tracking_uri: str, run_id: str) -> dict[str, Any]:
    """Points of a run; of those that differ from run to run, their steps."""
    return {
        name: [step for step, _ in points] if name in NOT_REPEATABLE else points
        for name, points in list_points(tracking_uri, run_id).items()
    }


@pytest.mark.slow
def test_a_server_that_goes_and_a_kill_meanwhile_leave_every_point_once(
    copy: Path, server: TrackingServer, tracking_uri: str
) -> None:
    """Server away, trainer killed with SIGKILL, trainer again, server again."""
    changes = {"train.total_images": 1600, "monitoring.sample_interval_images": 160}
    whole = copy / "whole"
    for name in ("images", "features"):
        shutil.copytree(copy / name, whole / name)
    assert start(whole, server.uri, changes).wait(PATIENCE_SECONDS) == 0

    process = start(copy, server.uri, changes)
    wait_for_checkpoint(process, copy, 64)
    server.stop()
    wait_for_checkpoint(process, copy, 320)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(copy, server.uri, changes)
    wait_for_checkpoint(process, copy, 640)
    process.send_signal(signal.SIGSTOP)
    server.start()
    process.send_signal(signal.SIGCONT)
    assert process.wait(PATIENCE_SECONDS) == 0

    assert hash_training(copy / "training") == hash_training(whole / "training")
    ids = [
        json.loads((root / "training" / "mlflow.json").read_text())["run_id"]
        for root in (copy, whole)
    ]
    client = open_client(server.uri)
    assert client.get_run(ids[0]).info.status == "FINISHED"
    experiment = client.get_run(ids[0]).info.experiment_id
    assert len(client.search_runs([experiment])) == 2, "one run a training"
    assert read_repeatable(tracking_uri, ids[0]) == read_repeatable(tracking_uri, ids[1])
    files = [[item.path for item in client.list_artifacts(run, "samples")] for run in ids]
    assert files[0] == files[1]
    assert len(files[0]) == 11
    assert not any(map(has_waiting, find_spools(copy / "work"))), "all was sent"
