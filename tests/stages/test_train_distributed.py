"""torchrun: two processes on the CPU are one process with the same batch, and can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clipgan.artifacts import hash_file
from clipgan.resume_state import is_finished
from tests.stages.tiny_training import (
    assert_same_training,
    build_world,
    run_training,
    single_thread,
    tiny_params,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
GATHERED: dict[str, Any] = {
    # Reduced precision would hide what differs.
    "train.precision": "fp32",
    "train.lafite.losses.gather_negatives": True,
    "train.lafite.losses.path_length_interval": 2,
    "train.pseudo_text.pseudo_text_probability": 0.5,
}
ADA: dict[str, Any] = GATHERED | {
    "train.augmentation.kind": "ada",
    "train.augmentation.ada_target": 0.001,
    "train.augmentation.ada_interval_steps": 1,
    "train.augmentation.ada_kimg": 0.02,
}
LONG = ADA | {"train.total_images": 480}
ALONE = GATHERED | {"train.lafite.losses.gather_negatives": False, "train.total_images": 8}
ODD = {"train.batch_size": 9, "train.lafite.discriminator.minibatch_std_group": 1}

Start = Callable[[str, Path, dict[str, Any]], subprocess.Popen[str]]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts two processes; whatever is left of them in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_two(module: str, root: Path, argument: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", "-m", module, str(root), json.dumps(argument)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start_two
    for process in started:
        if process.poll() is None:
            _kill_all(process)
            process.communicate()


def _kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL at once to torchrun and its workers, which live in sessions of their own."""
    whole = psutil.Process(process.pid)
    for one_of_them in [*whole.children(recursive=True), whole]:
        one_of_them.kill()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings in one process."""
    root = tmp_path_factory.mktemp("one")
    build_world(root)
    with single_thread():
        for name, changes in (("diffaugment", GATHERED), ("ada", ADA), ("alone", ALONE)):
            run_training(root, tiny_params(changes), output=name)
    return root


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    """The same trainings in two processes, one that is refused, and a long one."""
    root = tmp_path_factory.mktemp("two")
    for name in ("images", "features"):
        shutil.copytree(one / name, root / name)
    trainings = {"diffaugment": GATHERED, "ada": ADA, "alone": ALONE, "odd": ODD, "long": LONG}
    process = start("tests.stages.tiny_trainings", root, trainings)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    (root / "output.txt").write_text(output)
    return root


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_two_processes_equal_one_with_the_double_batch(one: Path, two: Path, name: str) -> None:
    assert_same_training(two / name, one / name)
    if name == "ada":
        rows = _read(one / name / "history.json")
        assert max(row.get("augmentation_probability", 0) for row in rows) > 0, "ADA never began"


def test_the_first_process_alone_writes_and_reports(two: Path) -> None:
    output = (two / "output.txt").read_text()
    assert output.count("train 96/96 images") == 2
    assert output.count("train 480/480 images") == 1
    assert _read(two / "ada" / "training.json")["num_processes"] == 2
    states = list((two / "work" / "train").iterdir())
    assert all(is_finished(state) for state in states)
    assert len(states) == 4  # of the trainings that were not refused


def test_without_gathering_each_process_contrasts_its_own_images(one: Path, two: Path) -> None:
    """The equality above is blind if negatives make no difference."""
    losses = [_read(root / "alone" / "history.json")[1]["clip_contrastive"] for root in (one, two)]
    # Four images to choose from instead of eight.
    assert losses[1] < losses[0] - 0.3


def test_a_batch_that_cannot_be_shared_is_refused(two: Path) -> None:
    message = (two / "odd.txt").read_text()
    assert "batch_size = 9 is not divisible by 2 processes: use 8 or 10" in message
    assert not (two / "odd").exists()


def _list_checkpoints(root: Path) -> list[Path]:
    return sorted(root.glob("work/train/*/checkpoints/checkpoint-*"))


def test_killed_and_stopped_and_restarted_ends_with_the_same_bits(
    two: Path, tmp_path: Path, start: Start
) -> None:
    for name in ("images", "features"):
        shutil.copytree(two / name, tmp_path / name)
    for blow in (signal.SIGKILL, signal.SIGTERM):
        before = _list_checkpoints(tmp_path)
        process = start("tests.stages.tiny_training", tmp_path, LONG)
        while process.poll() is None and _list_checkpoints(tmp_path)[-1:] == before[-1:]:
            time.sleep(0.005)
        if blow is signal.SIGKILL:
            _kill_all(process)
        else:
            process.send_signal(blow)
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0, "it ended by itself: stop it earlier"
        assert not (tmp_path / "training").exists()
    assert output.count("the same command goes on from here") == 1, output

    process = start("tests.stages.tiny_training", tmp_path, LONG)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert 0 < _read(tmp_path / "training" / "training.json")["resumed_from"] < 480
    for name in ("generator.safetensors", "discriminator.safetensors", "history.json"):
        assert hash_file(tmp_path / "training" / name) == hash_file(two / "long" / name)
