"""A run that is killed outright: its stage saves and ends, and the next run waits for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipgan.cli.dvc_graph import describe_blockers
from clipgan.cli.process_environment import QUIET_PREFECT
from pipelines import supervised
from pipelines.supervised import stop_group
from tests.pipelines.conftest import PATIENCE, ToyProject, is_running, wait_until
from tests.pipelines.test_killing import start_flow

pytestmark = pytest.mark.timeout(600)

WRITES = """
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print("ready", flush=True)
while not asked:
    time.sleep(0.01)
for _ in range(20):
    with open(sys.argv[1], "ab") as file:
        file.write(bytes(2**21))
    time.sleep(0.2)
os.replace(sys.argv[1], sys.argv[2])
"""
IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
print("ready", flush=True)
while True:
    time.sleep(600)
"""
DIES_WITH_PARENT = """
import os, subprocess, sys, time
child = '''
import signal, sys, time
from clipgan.parent_process import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: sys.exit(open(sys.argv[1], "w").close()))
end_with_parent()
print("ready", flush=True)
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", child, sys.argv[1]])
time.sleep(600)
"""


def start_ready(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_run_after_kill_9_waits_for_the_stage_and_says_so(
    toy: ToyProject, prefect_server: str
) -> None:
    for stage in ("first", "second", "second"):
        toy.set_mode(stage, "save slowly")
        toy.set_params({"evaluate.seed": time.monotonic_ns() % 2**31})
        flow = start_flow(toy, prefect_server)
        (pid, _) = toy.wait_for_pids()
        flow.kill()
        toy.set_mode(stage, "")
        (toy.root / "pids").unlink()
        again = toy.run("-m", "pipelines", "evaluate")
        assert again.returncode == 0, again.stdout + again.stderr
        assert again.stderr.count("\n") == 1, again.stderr
        assert f"clipgan evaluate (process {flow.pid}, since" in again.stderr
        assert "was killed; waiting for its stage to save its state and end" in again.stderr
        assert not is_running(pid)
        # It was not cut short, though nobody read what it printed.
        (toy.root / "saved").unlink()
        flow.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_killed_supervisor_takes_the_stage_with_it(toy: ToyProject, prefect_server: str) -> None:
    import psutil

    toy.set_mode("first", "sleep")
    flow = start_flow(toy, prefect_server)
    toy.wait_for_pids()
    (supervisor,) = [
        child
        for child in psutil.Process(flow.pid).children()
        if "supervised.py" in " ".join(child.cmdline())
    ]
    dvc = supervisor.children()[0]
    supervisor.kill()
    wait_until(lambda: not is_running(dvc.pid), seconds=PATIENCE)
    flow.kill()
    flow.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child")
def test_the_kernel_ends_a_stage_whose_parent_was_killed(tmp_path: Path) -> None:
    parent = start_ready(DIES_WITH_PARENT, str(tmp_path / "told"))
    parent.kill()
    wait_until((tmp_path / "told").exists, seconds=PATIENCE)
    parent.communicate()


def test_what_still_writes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "QUIET_SECONDS", 1.5)
    process = start_ready(WRITES, str(tmp_path / "partial"), str(tmp_path / "whole"))
    stop_group(process.pid)
    assert process.wait(PATIENCE) == 0
    assert (tmp_path / "whole").stat().st_size == 20 * 2**21


@pytest.mark.parametrize("limit", ["quiet", "longest"])
def test_what_does_nothing_or_never_ends_is_killed(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "QUIET_SECONDS", 0.5)
    if limit == "longest":
        monkeypatch.setattr(supervised, "LONGEST_SECONDS", 1.0)
        code, arguments = WRITES, [str(tmp_path / "partial"), str(tmp_path / "whole")]
    else:
        code, arguments = IGNORES, []
    process = start_ready(code, *arguments)
    stop_group(process.pid)
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_dvcs_own_lock_is_told_in_one_line(toy: ToyProject, prefect_server: str) -> None:
    toy.set_mode("second", "sleep")
    toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=prefect_server)
    by_hand = toy.start("-m", "dvc", "repro")
    pids = toy.wait_for_pids()
    again = toy.run("-m", "pipelines", "evaluate")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    by_hand.communicate(timeout=PATIENCE)
    assert again.returncode == 2, again.stdout
    (line,) = again.stderr.splitlines()
    assert f"(process {by_hand.pid}): wait for it, or stop it, and run again" in line
    assert line.startswith("error: ")
    assert " is in use by `" in line


def test_only_dvcs_lock_message_is_one() -> None:
    assert describe_blockers("'data' is not there") is None
    text = "ERROR: failed to reproduce 'x': '/p/data' is busy, it is being blocked by:\n"
    text += (
        "  (PID 7): dvc repro\n  (PID 8): dvc status\n\nIf there are no processes with such PIDs"
    )
    assert describe_blockers(text) == (
        "/p/data is in use by `dvc repro` (process 7), `dvc status` (process 8): "
        "wait for it, or stop it, and run again"
    )


def test_a_group_that_is_gone_needs_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], process_group=0)
    process.wait()
    started = time.monotonic()
    stop_group(process.pid)
    assert time.monotonic() - started < supervised.QUIET_SECONDS
    assert os.getpid() != process.pid
