"""Flow: the recipe of the built-in small CLIP. Its own flow, because models need it, not data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from clipgan.cli.workspace_lock import workspace_lock
from clipgan.stages.catalog import find_workspace
from pipelines.stages import call_task, run_logged, run_stage

NEEDED_STAGES = ("scan", "ingest")


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def pretrain(root: Path, name: str) -> Any:
    """``clipgan stage pretrain_clip`` in its own process; it resumes from its own state."""
    run_logged([sys.executable, "-m", "clipgan", "stage", "pretrain_clip"], root, name)
    return Completed(message="data/clip is new")


@flow(name="pretrain-clip", persist_result=False)
def pretrain_clip(project: str = ".") -> None:
    """Images of params.yaml -> data/clip, whatever data/clip holds now.

    Args:
        project: a folder of the project.
    """
    workspace = find_workspace(Path(project))
    with workspace_lock(workspace.root, "clipgan pretrain-clip"):
        state = None
        for name in NEEDED_STAGES:
            state = run_stage(workspace.root, name, after=state)
        call_task(pretrain, workspace.root, "pretrain_clip", state)
