"""``clipgan stage NAME`` and the other commands that write: under the workspace's lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipgan.cli.process_environment import apply_environment
from clipgan.cli.workspace_lock import workspace_lock
from clipgan.parent_process import end_with_parent
from clipgan.resume_state import remove_recorded
from clipgan.stages.catalog import run_stage
from clipgan.workspace import Workspace, find_workspace

RESUMED_STAGES = ("ingest", "features", "train")
"""Stages of dvc.yaml whose state is kept until dvc.lock names the result."""


def run_stage_here(name: str) -> None:
    """Run a stage of the project around the working directory.

    Called by DVC, by a person, or by torchrun, whose first process holds the lock for all.

    Raises:
        PipelineBusyError: another command writes in this project.
        ClipganError: see the stages.
    """
    if "DVC_STAGE" in os.environ:
        # When `dvc repro` is killed, the stage must not go on writing.
        end_with_parent()
    if os.environ.get("RANK", "0") != "0":
        workspace = find_workspace(Path.cwd())
        apply_environment(workspace.root)
        run_stage(name, workspace)
        return
    with locked_project(f"clipgan stage {name}") as workspace:
        apply_environment(workspace.root)
        remove_recorded_state(workspace)
        run_stage(name, workspace)


@contextmanager
def locked_project(command: str) -> Iterator[Workspace]:
    """The project around the working directory, with nobody else writing in it for the block.

    Raises:
        ConfigError: no project here.
        PipelineBusyError: another command writes in it.
    """
    workspace = find_workspace(Path.cwd())
    with workspace_lock(workspace.root, command):
        yield workspace


def remove_recorded_state(workspace: Workspace) -> None:
    """Remove the state of finished stages whose results dvc.lock names: DVC keeps those."""
    for name in RESUMED_STAGES:
        remove_recorded(workspace.work(name), workspace.dvc_lock)
