"""Two commands that write in one project at once: the second is told who the first is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipgan.cli.process_environment import QUIET_PREFECT
from clipgan.cli.workspace_lock import OWNER_VARIABLE, workspace_lock
from tests.pipelines.conftest import PATIENCE, ToyProject

pytestmark = pytest.mark.timeout(600)

HOLDS = """
import sys, time
from pathlib import Path
from clipgan.cli.workspace_lock import workspace_lock
with workspace_lock(Path.cwd(), "clipgan stage train"):
    print("held", flush=True)
    sys.stdin.read()
"""
STAGE_OF_CLIPGAN = """
stages:
  train:
    cmd: python -m clipgan stage nothing
    outs: [data/nothing]
"""


@pytest.fixture
def holder(toy: ToyProject) -> subprocess.Popen[str]:
    """A process that holds the lock of ``toy`` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        cwd=toy.root,
        env=toy.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_every_command_that_writes_is_refused(
    toy: ToyProject, holder: subprocess.Popen[str], prefect_server: str
) -> None:
    toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=prefect_server)
    before = (toy.root / "params.yaml").read_bytes()
    for command in (
        ["clipgan", "stage", "train"],
        ["clipgan", "register"],
        ["clipgan", "promote", "1"],
        ["clipgan", "init", "emoji", "--force"],
        ["clipgan", "clean", "--yes"],
        ["clipgan", "sync"],
        ["pipelines", "evaluate"],
        ["pipelines", "pretrain-mapper"],
    ):
        done = toy.run("-m", *command)
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert f"clipgan stage train (process {holder.pid}, since" in line, command
    assert (toy.root / "params.yaml").read_bytes() == before
    holder.communicate(timeout=PATIENCE)


def test_dvc_by_hand_is_refused_where_it_would_write(
    toy: ToyProject, holder: subprocess.Popen[str]
) -> None:
    (toy.root / "dvc.yaml").write_text(STAGE_OF_CLIPGAN)
    done = toy.run("-m", "dvc", "repro")
    assert f"(process {holder.pid}, since" in done.stderr
    holder.communicate(timeout=PATIENCE)
    # Free now: the stage itself is what is wrong.
    assert "nothing is no stage" in toy.run("-m", "dvc", "repro").stderr


def test_what_the_holder_starts_works_under_its_lock(toy: ToyProject) -> None:
    (toy.root / "dvc.yaml").write_text(STAGE_OF_CLIPGAN)
    owner = str(os.getpid())
    with workspace_lock(toy.root, "clipgan run"):
        toy.environment[OWNER_VARIABLE] = owner
        assert "nothing is no stage" in toy.run("-m", "dvc", "repro").stderr
        # A number alone is no ownership: it must be that of the holder.
        for other in ("1", "999999999", ""):
            toy.environment[OWNER_VARIABLE] = other
            assert f"(process {owner}, since" in toy.run("-m", "dvc", "repro").stderr


def test_of_two_stages_at_once_one_runs(toy: ToyProject) -> None:
    command = [sys.executable, "-c", HOLDS.replace("sys.stdin.read()", "time.sleep(3)")]
    started = [
        subprocess.Popen(
            command,
            cwd=toy.root,
            env=toy.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=PATIENCE) for process in started]
    assert sorted(output for output, _ in told) == ["", "held\n"]
    assert Path(toy.root / ".dvc" / "tmp" / "pipeline.lock").read_text() == ""
