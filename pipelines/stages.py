"""A DVC stage as a Prefect task.

The task runs the stage where DVC calls it stale, and logs every line that the stage prints. Tasks
are called directly, one after the other, in the flow's main thread: DVC's locks do not wait for
each other, and a timeout interrupts a blocking read only there.
"""

from __future__ import annotations

import functools
import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import CancelledRun
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from clipgan.cli.dvc_graph import describe_blockers, open_graph
from clipgan.cli.process_environment import process_environment
from clipgan.cli.stage_process import remove_recorded_state
from clipgan.errors import StageFailedError
from clipgan.workspace import Workspace
from pipelines.console import active_console
from pipelines.processes import stream

P = ParamSpec("P")
R = TypeVar("R")

CACHED, WAITING = "Cached", "Waiting"
TAIL_LINES = 20
RETRY_DELAY_SECONDS = 10

_EXIT_STATUS = re.compile(r"exited with (-?\d+)")
_ERROR_LINE = re.compile(r"^error: (.*)$")
# Lines that DVC prints around a stage: they go to Prefect's log, not to the terminal.
_DVC_LINE = re.compile(
    r"^(Running stage |> |Updating lock file|Generating lock file|To track the changes|\s+git add|"
    r"To enable auto staging|\s+dvc config|Use `dvc push`|ERROR: failed to reproduce|error: |"
    r"Stage '.*' (didn't change|is cached))"
)


def cancelled_by_ctrl_c(function: Callable[P, R]) -> Callable[P, R]:
    """Give a flow or task that Ctrl-C ends the state Cancelled; Prefect would call it Crashed."""

    @functools.wraps(function)
    def run(*args: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*args, **keywords)
        except (KeyboardInterrupt, CancelledRun):
            words = "stopped by Ctrl-C; the same command goes on from here"
            return Cancelled(message=words)  # type: ignore[return-value]  # Prefect takes a state

    return run


def run_dvc_stage(
    root: Path, name: str, *, after: State[Any] | None = None, timeout_seconds: float | None = None
) -> State[Any]:
    """Bring a stage of the project at ``root`` up to date; returns the task's final state.

    ``name`` is DVC's: ``train``, or ``FILE:STAGE`` for one that is not in the pipeline's dvc.yaml.

    ``after`` is the state of the task before, for the graph in Prefect's page.

    Raises:
        StageFailedError: the stage ended with an error, or took longer than ``timeout_seconds``.
    """
    short = name.rpartition(":")[2]
    state = call_task(dvc_stage, root, short, after, address=name, timeout_seconds=timeout_seconds)
    # Now dvc.lock names the result.
    remove_recorded_state(Workspace(root))
    return state


def call_task(
    step: Callable[..., Any],
    root: Path,
    name: str,
    after: State[Any] | None = None,
    **parameters: Any,
) -> State[Any]:
    """Call a task directly; returns its final state, or raises the exception in it."""
    console = active_console()
    wait_for = [after] if after is not None else None
    state: State[Any] = step(root, name, return_state=True, wait_for=wait_for, **parameters)
    if not state.is_completed():
        state.result(raise_on_failure=True)
    if console is not None:
        words = {CACHED: "unchanged", WAITING: "not sent"}
        console.finish_step(name, words.get(str(state.name), "done"))
    return state


def has_run(state: State[Any]) -> bool:
    """Whether the task did anything."""
    return state.name != CACHED


def _is_worth_retrying(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Retry a stage that was killed, which resumes; an error would only be reported again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailedError) and error.was_killed


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_delay_seconds=RETRY_DELAY_SECONDS,
    retry_condition_fn=_is_worth_retrying,
)
@cancelled_by_ctrl_c
def dvc_stage(root: Path, name: str, address: str, timeout_seconds: float | None = None) -> Any:
    """``dvc repro --single-item address`` where DVC calls the stage stale."""
    with open_graph(root) as graph:
        stale = graph.is_stale(address)
    if not stale:
        return Completed(name=CACHED, message="DVC: unchanged")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", address]
    run_logged(command, root, name, timeout_seconds)
    return Completed(message=f"{name} ran")


def run_logged(
    command: list[str], root: Path, name: str, timeout_seconds: float | None = None
) -> None:
    """Run ``command`` for the step ``name``: each line of its output a record of the task's log.

    Raises:
        StageFailedError: it ended with a status other than 0, or took too long.
    """
    logger, console = get_run_logger(), active_console()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    traceback: list[str] = []
    if console is not None:
        console.start_step(name)

    def on_line(line: str) -> None:
        if not line:
            return
        tail.append(line)
        if traceback or line.startswith("Traceback (most recent call last)"):
            traceback.append(line)
        logger.info(line)
        if console is not None and not _DVC_LINE.match(line):
            console.show_line(line)

    try:
        code = stream(
            command,
            on_line,
            folder=root,
            # The training tags its MLflow run with it.
            environment=process_environment(root) | {"PREFECT__FLOW_RUN_ID": flow_run.id or ""},
            timeout_seconds=timeout_seconds,
        )
    except TimeoutError as error:
        raise StageFailedError(f"{name}: {error}; run again to resume") from None
    if code:
        failure = describe_failure(name, code, list(tail))
        failure.traceback = "\n".join(traceback)
        raise failure


def describe_failure(name: str, code: int, tail: list[str]) -> StageFailedError:
    """The error of a step, made from its exit status and last lines.

    The message is the stage's own ``error: ...`` line where there is one. The stage's exit status
    is in a line of DVC's; DVC's own status is always 255.
    """
    reported = [match[1] for line in tail if (match := _ERROR_LINE.match(line))]
    ended = [int(match[1]) for line in tail if (match := _EXIT_STATUS.search(line))]
    status = ended[-1] if ended else code
    number = -status if status < 0 else status - 128
    was_killed = status < 0 or 128 < status < 255
    busy = describe_blockers("\n".join(tail))
    if busy is not None:
        reason = busy
    elif reported:
        reason = reported[-1]
    elif was_killed:
        reason = f"ended by signal {number} (9 often means out of memory); run again to resume"
    else:
        reason = f"exit status {status}: {tail[-1] if tail else 'no output'}"
    return StageFailedError(
        f"{name}: {reason}", exit_code=2 if status == 2 or busy else 1, was_killed=was_killed
    )
