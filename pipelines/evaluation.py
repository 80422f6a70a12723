"""Flow: bring every stage of dvc.yaml up to date and show the evaluation. Registers nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from clipgan.cli.dvc_graph import open_graph
from clipgan.cli.workspace_lock import workspace_lock
from clipgan.errors import StageFailedError
from clipgan.stages.runs import is_anything_waiting
from clipgan.workspace import Workspace, find_workspace
from pipelines.prefect_artifacts import publish_evaluation
from pipelines.stages import (
    WAITING,
    call_task,
    cancelled_by_ctrl_c,
    has_run,
    run_dvc_stage,
    run_logged,
)


@flow(name="evaluate-generator", persist_result=False)
@cancelled_by_ctrl_c
def evaluate_generator(project: str = ".", stage_timeout_seconds: float | None = None) -> None:
    """Run what is stale, in DVC's order.

    Args:
        project: a folder of the project.
        stage_timeout_seconds: for each stage; None: no limit.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan evaluate"):
        run_stages(workspace, stage_timeout_seconds)


def run_stages(workspace: Workspace, timeout_seconds: float | None) -> State[Any] | None:
    """Run every stage as a task, one after the other; returns the state of the last one.

    Publishes Prefect artifacts if anything ran.

    Raises:
        StageFailedError: a stage failed. Those before it are done and recorded in dvc.lock.
    """
    with open_graph(workspace.root) as graph:
        names = graph.list_stages()
    state: State[Any] | None = None
    for name in names:
        state = run_dvc_stage(workspace.root, name, after=state, timeout_seconds=timeout_seconds)
    if state is not None and has_run(state):
        publish_evaluation(workspace)
    if is_anything_waiting(workspace):
        call_task(send_waiting, workspace.root, "sync")
    return state


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
@cancelled_by_ctrl_c
def send_waiting(root: Path, name: str) -> Any:
    """``clipgan sync`` in its own process. What MLflow does not take stays in the spool."""
    try:
        run_logged([sys.executable, "-m", "clipgan", "sync"], root, name)
    except StageFailedError as error:
        return Completed(name=WAITING, message=str(error))
    return Completed(message="MLflow has everything")
