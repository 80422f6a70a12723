"""`python -m pipelines`, what `clipgan run` becomes: server or none, nothing to do, output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clipgan.cli.environment import QUIET_PREFECT
from clipgan.cli.models import compute_state
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.tracking.environment import resolve_tracking_uri
from clipgan.workspace import Workspace
from pipelines.__main__ import find_server, main
from pipelines.stages import describe_failure
from tests.mlflow_stores import save_version
from tests.pipelines.conftest import PATIENCE, ToyProject, is_running, wait_until

pytestmark = pytest.mark.timeout(600)

UNUSED_PORT = "9"
NO_OP_CPU_SECONDS = 15.0


def use_no_server(toy: ToyProject) -> None:
    toy.environment.update(QUIET_PREFECT, PREFECT_SERVER_API_PORT=UNUSED_PORT)
    toy.environment.pop("PREFECT_API_URL", None)


def pretend_registration(toy: ToyProject, database: Path) -> None:
    """What `clipgan register` leaves for the project's present state."""
    workspace = Workspace(toy.root)
    workspace.mlruns.mkdir(exist_ok=True)
    shutil.copyfile(database, workspace.mlruns / "mlflow.db")
    params = load_params(workspace.params_file)
    save_version(
        resolve_tracking_uri(toy.root, {}),
        workspace.mlruns / "artifacts" / "model",
        params.register_model.model_name,
        compute_state(params, workspace),
    )


def test_nothing_to_do_needs_no_server_torch_or_mlflow(
    toy: ToyProject, migrated_database: Path
) -> None:
    use_no_server(toy)
    assert toy.run("-m", "dvc", "repro").returncode == 0
    pretend_registration(toy, migrated_database)
    toy.take_runs()
    before = os.times()
    done = toy.run("-X", "importtime", "-m", "pipelines", "train")
    after = os.times()
    assert done.returncode == 0, done.stderr
    # Of the processors, not of the clock: the same on a busy machine.
    assert sum(after[2:4]) - sum(before[2:4]) < NO_OP_CPU_SECONDS
    assert done.stdout.splitlines()[0] == "nothing to do: every stage is up to date"
    assert "clipgan-emoji version 1, champion: better" in done.stdout
    assert toy.take_runs() == ["look"]
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "dvc.repo" in imported
    assert not imported & {"torch", "mlflow", "prefect"}


def test_a_flow_imports_no_torch_and_no_mlflow(toy: ToyProject) -> None:
    code = (
        "import sys, pipelines.training, pipelines.pretraining, pipelines.__main__\n"
        "print(sorted({'torch', 'mlflow'} & set(sys.modules)))"
    )
    assert toy.run("-c", code).stdout == "[]\n"


def test_a_running_server_is_found_and_told(toy: ToyProject, prefect_server: str) -> None:
    toy.environment.update(QUIET_PREFECT, PREFECT_SERVER_API_PORT=prefect_server.split(":")[2][:-4])
    done = toy.run("-m", "pipelines", "evaluate")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "starting a Prefect server" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[:3] == ["look", "  look 1/2 images", "  look 2/2 images"]
    assert not [line for line in lines if "dvc" in line or "Running stage" in line]
    again = toy.run("-m", "pipelines", "evaluate")
    assert "first  unchanged\nsecond  unchanged\n" in again.stdout


@pytest.mark.slow
def test_without_a_server_one_is_started_for_the_run(toy: ToyProject) -> None:
    use_no_server(toy)
    done = toy.run("-m", "pipelines", "evaluate")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert toy.take_runs() == ["look", "first", "second"]
    assert (toy.root / ".prefect" / "prefect.db").exists()


def test_a_failed_stage_ends_with_its_line_and_its_exit_code(
    toy: ToyProject, prefect_server: str
) -> None:
    toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=prefect_server)
    toy.set_mode("first", "fail")
    done = toy.run("-m", "pipelines", "evaluate")
    assert done.returncode == 2
    assert done.stderr == "error: first: first.x = 7: use a smaller one\n"


def test_debug_ends_with_the_traceback_of_the_stage(toy: ToyProject, prefect_server: str) -> None:
    toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=prefect_server, CLIPGAN_DEBUG="1")
    toy.set_mode("first", "crash")
    done = toy.run("-m", "pipelines", "evaluate")
    lines = done.stderr.splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("Traceback"))
    assert 'raise RuntimeError("unforeseen")' in "\n".join(lines[start:])
    assert "pipelines" not in "\n".join(lines[start:-1])
    assert lines[-1].startswith("error: first: ")


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(
        ConfigError, match=r"PREFECT_API_URL = 'http://127.0.0.1:9/api': no Prefect"
    ):
        find_server()
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", UNUSED_PORT)
    assert find_server() is None


def test_an_unknown_flow_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"one of train, evaluate, pretrain-clip, pretrain-generator, pretrain-mapper$",
    ):
        main(["trian"])


@pytest.mark.parametrize(
    ("code", "tail", "message", "exit_code", "was_killed"),
    [
        (255, ["error: x = 1", "ERROR: ... CMD, exited with 2"], "s: x = 1", 2, False),
        (255, ["error: NaN", "ERROR: ... CMD, exited with 1"], "s: NaN", 1, False),
        (
            255,
            ["ERROR: ... CMD, exited with -9"],
            "s: ended by signal 9 (9 often means out of memory); run again to resume",
            1,
            True,
        ),
        (
            255,
            ["ERROR: ... CMD, exited with 1"],
            "s: exit status 1: ERROR: ... CMD, exited with 1",
            1,
            False,
        ),
        (255, ["ERROR: lock"], "s: exit status 255: ERROR: lock", 1, False),
        (
            143,
            [],
            "s: ended by signal 15 (9 often means out of memory); run again to resume",
            1,
            True,
        ),
    ],
)
def test_a_failure_says_what_the_stage_said(
    code: int, tail: list[str], message: str, exit_code: int, was_killed: bool
) -> None:
    error = describe_failure("s", code, tail)
    assert (str(error), error.exit_code, error.was_killed) == (message, exit_code, was_killed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_everything_in_the_terminal_leaves_nothing_behind(
    toy: ToyProject, number: signal.Signals
) -> None:
    """Ctrl-C reaches the whole foreground group; the run must not wait for a server it killed."""
    use_no_server(toy)
    toy.set_mode("first", "sleep")
    flow = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "evaluate"],
        cwd=toy.root,
        env=toy.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    toy.wait_for_pids()
    processes = find_project_processes(toy)
    assert len(processes) >= 5  # flow, server, DVC, stage, its child, and two supervisors
    os.killpg(flow.pid, number)
    started = time.monotonic()
    output, _ = flow.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < PATIENCE
    if number == signal.SIGINT:
        assert (flow.returncode, output.splitlines()[-1]) == (
            130,
            "interrupted; run the same command again to resume",
        )
    wait_until(lambda: not any(is_running(pid) for pid in processes), seconds=PATIENCE)


def find_project_processes(toy: ToyProject) -> list[int]:
    """Every process whose working directory is the project."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(toy.root):
                found.append(process.pid)
    return found
