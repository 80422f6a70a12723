"""However a flow ends, its stage ends too, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort

from clipgan.cli.process_environment import QUIET_PREFECT
from pipelines.processes import stream
from tests.pipelines.conftest import PATIENCE, ToyProject, is_running, wait_until

pytestmark = pytest.mark.timeout(600)

SLEEP = "import time; time.sleep(600)"


ALL = ["look", "first", "second"]
EXIT_CODES = {
    signal.SIGINT: (130,),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGKILL: (-signal.SIGKILL,),
}


def start_flow(toy: ToyProject, server: str) -> subprocess.Popen[str]:
    toy.environment.update(QUIET_PREFECT, PREFECT_API_URL=server)
    return toy.start("-m", "pipelines", "evaluate")


def read_last_states() -> tuple[str, str]:
    """Types of the newest flow run's state and of its newest task's, as Prefect's page has them."""
    with get_client(sync_client=True) as client:
        (flow,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow.id]))
        task = max(client.read_task_runs(flow_run_filter=chosen), key=lambda run: run.created)
    return flow.state.type.value, task.state.type.value


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("look", signal.SIGINT),
        pytest.param("first", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("second", signal.SIGINT, marks=pytest.mark.slow),
        ("second", signal.SIGTERM),
        ("second", signal.SIGKILL),
    ],
)
def test_a_stopped_flow_leaves_nothing_behind_and_can_be_run_again(
    toy: ToyProject, prefect_server: str, stage: str, number: signal.Signals
) -> None:
    toy.set_mode(stage, "sleep")
    flow = start_flow(toy, prefect_server)
    pids = toy.wait_for_pids()
    flow.send_signal(number)
    output, _ = flow.communicate(timeout=PATIENCE)
    assert flow.returncode in EXIT_CODES[number], output
    wait_until(lambda: not any(is_running(pid) for pid in pids), seconds=PATIENCE)
    if number == signal.SIGINT:
        assert output.splitlines()[-1] == "interrupted; run the same command again to resume"
        assert read_last_states() == ("CANCELLED", "CANCELLED")
    assert not (toy.root / "data" / stage).exists()

    toy.take_runs()
    toy.set_mode(stage, "")
    again = toy.run("-m", "pipelines", "evaluate")
    assert again.returncode == 0, again.stdout + again.stderr
    # What was done before the stop is not done again.
    assert toy.take_runs() == ["look", *ALL[max(ALL.index(stage), 1) :]]
    assert (toy.root / "data" / "second").exists()


def test_the_second_of_two_pipelines_is_told_who_runs(toy: ToyProject, prefect_server: str) -> None:
    toy.set_mode("first", "sleep")
    flow = start_flow(toy, prefect_server)
    toy.wait_for_pids()
    second = toy.run("-m", "pipelines", "evaluate")
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        line
        for line in second.stderr.splitlines()
        if line.startswith("error: another pipeline runs in") and str(flow.pid) in line
    ]
    flow.terminate()
    flow.communicate(timeout=PATIENCE)


def stream_lines(code: str, tmp_path: Path, **options: float) -> tuple[int, list[str]]:
    lines: list[str] = []
    status = stream(
        [sys.executable, "-c", code],
        lines.append,
        folder=tmp_path,
        environment=dict(os.environ, PYTHONUNBUFFERED="1"),
        **options,
    )
    return status, lines


def test_lines_and_exit_status_come_through(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert stream_lines(code, tmp_path) == (3, ["out", "err"])
    assert stream_lines("import os; os.kill(os.getpid(), 9)", tmp_path) == (128 + 9, [])


def test_a_line_is_handed_over_when_it_is_printed(tmp_path: Path) -> None:
    started = time.monotonic()

    def stop(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="first"):
        stream(
            [sys.executable, "-c", f"print('first'); {SLEEP}"],
            stop,
            folder=tmp_path,
            environment=dict(os.environ, PYTHONUNBUFFERED="1"),
        )
    assert time.monotonic() - started < PATIENCE


def test_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.5 seconds"):
        stream_lines(SLEEP, tmp_path, timeout_seconds=0.5)


def test_what_a_finished_command_left_running_is_ended(tmp_path: Path) -> None:
    code = f"import subprocess, sys;print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid)"
    status, lines = stream_lines(code, tmp_path)
    assert status == 0
    assert not is_running(int(lines[0]))
