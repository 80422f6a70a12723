"""Flows of the recipes: the built-in CLIP, a generator to start from, a noise mapper.

Their stages stand in ``recipes/dvc.yaml``, outside the pipeline, which starts from their results.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from clipgan.cli.dvc_graph import open_graph
from clipgan.cli.workspace_lock import workspace_lock
from clipgan.workspace import Workspace, find_workspace
from pipelines.stages import cancelled_by_ctrl_c, run_dvc_stage


@flow(name="pretrain-clip", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_clip(project: str = ".") -> None:
    """Images of params.yaml -> data/clip, where DVC calls that stale.

    Args:
        project: a folder of the project.
    """
    _run_recipe(find_workspace(Path(project)), "pretrain_clip")


@flow(name="pretrain-generator", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_generator(project: str = ".") -> None:
    """Images of params.yaml -> data/generator, where DVC calls that stale.

    Args:
        project: a folder of the project.
    """
    _run_recipe(find_workspace(Path(project)), "pretrain_generator")


@flow(name="pretrain-mapper", persist_result=False)
@cancelled_by_ctrl_c
def pretrain_mapper(project: str = ".") -> None:
    """Features of the images of params.yaml -> data/mapper, where DVC calls that stale.

    Args:
        project: a folder of the project.
    """
    _run_recipe(find_workspace(Path(project)), "pretrain_mapper")


def _run_recipe(workspace: Workspace, name: str) -> None:
    with workspace_lock(workspace.root, f"clipgan {name.replace('_', '-')}"):
        with open_graph(workspace.root) as graph:
            stages = graph.list_stages(recipe=name)
        state = None
        for stage in stages:
            state = run_dvc_stage(workspace.root, stage, after=state)
