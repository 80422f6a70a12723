"""Flow: the data of params.yaml -> a trained, evaluated, registered model."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from clipgan.cli.workspace_lock import workspace_lock
from clipgan.workspace import find_workspace
from pipelines.evaluation import run_stages
from pipelines.promotion import register_generator
from pipelines.stages import call_task, cancelled_by_ctrl_c


@flow(name="train-generator", persist_result=False)
@cancelled_by_ctrl_c
def train_generator(project: str = ".", stage_timeout_seconds: float | None = None) -> None:
    """Every stage of dvc.yaml that is stale, then registration and the gate.

    Args:
        project: a folder of the project.
        stage_timeout_seconds: for each stage; None: no limit.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan run"):
        last = run_stages(workspace, stage_timeout_seconds)
        call_task(register_generator, workspace.root, "register", last)
