"""Flows: the recipes of the built-in CLIP, of a generator to start from, of a noise mapper.

Apart from the training flow, because their results are starts for it: ``train`` does not run them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from clipgan.cli.workspace_lock import workspace_lock
from clipgan.workspace import Workspace, find_workspace
from pipelines.stages import call_task, cancelled_by_ctrl_c, run_logged, run_stage


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
@cancelled_by_ctrl_c
def pretrain(root: Path, name: str) -> Any:
    """``clipgan stage NAME`` in its own process; it resumes from its own state."""
    run_logged([sys.executable, "-m", "clipgan", "stage", name], root, name)
    return Completed(message=f"{name} ran")


@flow(name="pretrain-clip", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_clip(project: str = ".") -> None:
    """Images of params.yaml -> data/clip, whatever data/clip holds now.

    Args:
        project: a folder of the project.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan pretrain-clip"):
        _run_recipe(workspace, "pretrain_clip", needs=("scan", "settings", "ingest"))


@flow(name="pretrain-generator", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_generator(project: str = ".") -> None:
    """Images of params.yaml -> data/generator, whatever data/generator holds now.

    Args:
        project: a folder of the project.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan pretrain-generator"):
        _run_recipe(
            workspace, "pretrain_generator", needs=("scan", "settings", "ingest", "features")
        )


@flow(name="pretrain-mapper", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_mapper(project: str = ".") -> None:
    """Features of the images of params.yaml -> data/mapper, whatever data/mapper holds now.

    Args:
        project: a folder of the project.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan pretrain-mapper"):
        _run_recipe(workspace, "pretrain_mapper", needs=("scan", "settings", "ingest", "features"))


def _run_recipe(workspace: Workspace, name: str, *, needs: tuple[str, ...]) -> None:
    state = None
    for needed in needs:
        state = run_stage(workspace.root, needed, after=state)
    call_task(pretrain, workspace.root, name, state)
