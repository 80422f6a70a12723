"""`python -m pipelines`, what `clipgan run` becomes: server or none, nothing to do, output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort

from clipgan.cli.models import compute_state
from clipgan.cli.process_environment import QUIET_PREFECT
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.resume_state import has_waiting
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.tracking.spool import RunHeader, Spool
from clipgan.workspace import Workspace
from pipelines.__main__ import find_server, main
from pipelines.stages import describe_failure
from tests.mlflow_stores import save_version
from tests.pipelines.conftest import PATIENCE, ToyProject, is_running, wait_until

pytestmark = pytest.mark.timeout(600)

UNUSED_PORT = "9"
NOBODY = f"http://127.0.0.1:{UNUSED_PORT}"
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


@pytest.mark.slow
def test_nothing_to_do_still_sends_what_waits_for_mlflow(
    toy: ToyProject, migrated_database: Path
) -> None:
    use_no_server(toy)
    assert toy.run("-m", "dvc", "repro").returncode == 0
    pretend_registration(toy, migrated_database)
    folder = log_one_point(toy)
    done = toy.run("-m", "pipelines", "train")
    assert done.returncode == 0, done.stderr
    assert "sent 1 points and 0 files" in done.stdout
    assert not has_waiting(folder)
    assert toy.run("-m", "pipelines", "train").stdout.startswith("nothing to do")


@pytest.mark.parametrize("has_prefect", [True, False])
def test_a_tracking_server_that_is_away_ends_a_run_with_one_line_that_says_what_is_safe(
    toy: ToyProject, has_prefect: bool, prefect_server: str
) -> None:
    """After the stages, and where they are all up to date and no Prefect server is asked."""
    toy.environment.update(MLFLOW_TRACKING_URI=NOBODY, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    waits = ""
    if has_prefect:
        toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=prefect_server)
        log_one_point(toy)
        waits = " and sends the 1 points and 0 files that wait"
    else:
        use_no_server(toy)
        assert toy.run("-m", "dvc", "repro").returncode == 0
    done = toy.run("-m", "pipelines", "train")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: the generator is not registered: the MLflow store {NOBODY} cannot be used: the "
        "tracking server does not answer. Its training and evaluation are complete, in "
        "data/training and data/evaluation. Once the store can be used again, `clipgan run` "
        f"registers it{waits}; it trains nothing again\n"
    )
    assert "error" not in done.stdout
    assert ("  not sent in " in done.stdout) is has_prefect


def log_one_point(toy: ToyProject) -> Path:
    """The folder of a training whose point MLflow has not taken yet."""
    spool = Spool(Workspace(toy.root).work("train") / "a", RunHeader("key", "test", "name", 0))
    spool.append("metrics", step=16, values={"loss": 1.0})
    return spool.folder


def test_ctrl_c_while_points_are_sent_is_cancelled_in_prefect(
    toy: ToyProject, prefect_server: str
) -> None:
    folder = log_one_point(toy)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        toy.environment.update(
            QUIET_PREFECT,
            PREFECT_API_URL=prefect_server,
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        flow = toy.start("-m", "pipelines", "evaluate")
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()  # `clipgan sync` waits for an answer now
        with connection:
            flow.send_signal(signal.SIGINT)
            output, _ = flow.communicate(timeout=PATIENCE)
    assert flow.returncode == 130, output
    assert has_waiting(folder)
    expected = {"flow": "Cancelled", "sync": "Cancelled"} | dict.fromkeys(
        ("look", "first", "second"), "Completed"
    )
    # The server takes in task states a moment after they happen.
    deadline = time.monotonic() + 30
    while find_states_of_last_flow() != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert find_states_of_last_flow() == expected


def find_states_of_last_flow() -> dict[str, str]:
    """Of the flow run that started last and its tasks, by name."""
    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        chosen = FlowRunFilter(id={"any_": [last.id]})
        tasks = client.read_task_runs(flow_run_filter=chosen)
    return {"flow": last.state_name} | {task.name: task.state_name for task in tasks}


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
