"""SIGKILL between the end of a training and DVC's commit: nothing is trained, or logged, twice.

``CLIPGAN_KILLS=30 pytest -m slow tests/pipelines/test_commit_window.py`` kills thirty times.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from clipgan.artifacts import hash_file
from clipgan.resume_state import hash_like_dvc, list_states
from clipgan.tracking.mlflow_store import open_client
from tests.params import tree_with
from tests.pipelines.conftest import PATIENCE, wait_until
from tests.pipelines.test_dvc_project import TINY, YAML, Clone, copy_project

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CLIPGAN_KILLS", "6"))
TRAIN = ("dvc", "repro", "--single-item", "train")
WINDOW_SECONDS = 3.0
"""From a result in place to dvc.lock, on two idle cores; longer on a busy machine."""


@dataclass(frozen=True)
class Kill:
    """What was killed and when, and what the run after it did."""

    victim: str
    seconds: float
    was_recorded: bool
    same_bytes: bool
    resumed_from: int | None
    num_states: int


def hash_result(training: Path) -> dict[str, str]:
    names = ("generator.safetensors", "discriminator.safetensors", "history.json")
    return {name: hash_file(training / name) for name in names}


def start_training(clone: Clone) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *TRAIN],
        cwd=clone.root,
        env=clone.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(dvc: subprocess.Popen[bytes], victim: str) -> None:
    processes = [psutil.Process(dvc.pid)]
    if victim != "dvc":
        children = processes[0].children(recursive=True)
        processes = children if victim == "stage" else [*processes, *children]
    for process in processes:
        process.kill()


def kill_once(clone: Clone, number: int, draws: random.Random) -> Kill:
    with (clone.root / "params.yaml").open("w") as handle:
        YAML().dump(tree_with(TINY | {"train.seed": number + 1}), handle)
    training = clone.root / "data" / "training"
    # DVC compares what this stage writes, not params.yaml.
    clone.run("dvc", "repro", "--single-item", "settings")
    lock = (clone.root / "dvc.lock").read_bytes()
    dvc = start_training(clone)
    wait_until(lambda: not training.exists(), seconds=PATIENCE)
    wait_until((training / "training.json").exists, seconds=PATIENCE)
    expected = hash_result(training)
    seconds, victim = draws.uniform(0.0, WINDOW_SECONDS), ("all", "dvc", "stage")[number % 3]
    deadline = time.monotonic() + seconds
    while dvc.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if dvc.poll() is None:
        kill(dvc, victim)
    dvc.wait()
    was_recorded = (clone.root / "dvc.lock").read_bytes() != lock
    clone.run(*TRAIN)
    return Kill(
        victim=victim,
        seconds=round(seconds, 2),
        was_recorded=was_recorded,
        same_bytes=hash_result(training) == expected,
        resumed_from=json.loads((training / "training.json").read_text())["resumed_from"],
        num_states=len(list_states(clone.root / "data" / ".work" / "train")),
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = copy_project(tmp_path_factory.mktemp("clone") / "project")
    made.run("dvc", "repro", "train")
    return made


@pytest.fixture(scope="module")
def kills(clone: Clone) -> list[Kill]:
    draws = random.Random(0)
    done = []
    for number in range(KILLS):
        done.append(kill_once(clone, number, draws))
        print(done[-1], flush=True)
    return done


def test_no_step_is_trained_again_and_the_bytes_are_the_same(kills: list[Kill]) -> None:
    assert all(row.same_bytes for row in kills)
    # A training that was recorded, or that DVC's run cache had, is not even started again.
    assert {row.resumed_from for row in kills} <= {None, TINY["train.total_images"]}
    assert any(row.resumed_from for row in kills), "no kill hit the window"
    assert max(row.num_states for row in kills) <= 1


def test_each_training_is_one_mlflow_run(clone: Clone, kills: list[Kill]) -> None:
    client = open_client(f"sqlite:///{clone.root}/mlruns/mlflow.db")
    experiments = [found.experiment_id for found in client.search_experiments()]
    # The first training of the clone, and one a kill.
    assert len(client.search_runs(experiments)) == 1 + len(kills)


def test_the_lock_names_what_is_there_and_the_state_goes(clone: Clone, kills: list[Kill]) -> None:
    training = clone.root / "data" / "training"
    assert hash_like_dvc(training) in (clone.root / "dvc.lock").read_text()
    clone.run("clipgan", "clean", "--dry-run")
    assert list_states(clone.root / "data" / ".work" / "train") == []


def test_kill_9_of_a_run_and_an_immediate_new_one(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: str
) -> None:
    """A real training; the new run waits for it, then goes on from the checkpoint it saved."""
    clone = copy_project(tmp_path_factory.mktemp("killed") / "project")
    clone.environment["PREFECT_API_URL"] = prefect_server
    work = clone.root / "data" / ".work" / "train"
    with (clone.root / "params.yaml").open("w") as handle:
        YAML().dump(tree_with(TINY | {"train.total_images": 768}), handle)
    command = [sys.executable, "-m", "pipelines", "evaluate"]
    options = {"cwd": clone.root, "env": clone.environment, "text": True}
    flow = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **options)
    for _ in range(3):
        before = set(work.glob("*/checkpoints/checkpoint-*"))
        wait_until(
            lambda seen=before: set(work.glob("*/checkpoints/checkpoint-*[1-9]*")) - seen,
            seconds=PATIENCE,
        )
        flow.kill()
        again = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **options
        )
        flow.communicate()
        flow = again
    _, said = flow.communicate(timeout=PATIENCE)
    assert flow.returncode == 0, said
    lines = said.splitlines()
    assert all("was killed; waiting for its stage" in line for line in lines), said
    training = json.loads((clone.root / "data" / "training" / "training.json").read_text())
    assert training["resumed_from"] > 0
