"""``clipgan status``: what is up to date, what a run would redo, and who is running."""

from __future__ import annotations

import contextlib

from rich.console import Console

from clipgan.cli.dvc_graph import Freshness, open_graph
from clipgan.cli.models import find_registered
from clipgan.cli.workspace_lock import find_lock_holder
from clipgan.errors import RegistryError
from clipgan.stages.catalog import run_stage
from clipgan.stages.resolution_check import check_resolutions
from clipgan.tracking.sender import short_requests
from clipgan.workspace import open_project

_COLORS = {Freshness.FRESH: "green", Freshness.STALE: "yellow", Freshness.ALWAYS: "dim"}


def print_status() -> None:
    """Print one line a stage and one for the model.

    While a pipeline runs this does not call DVC: DVC's locks would make one of the two fail.
    """
    workspace, params = open_project()
    check_resolutions(params, workspace.root)
    console = Console(highlight=False)
    holder = find_lock_holder(workspace.root)
    if holder is not None:
        word = "running" if holder.is_running() else "ending"
        console.print(f"{word}: {holder}")
        return
    # DVC compares the file that this stage wrote last, not params.yaml.
    try:
        with contextlib.chdir(workspace.root), short_requests():
            run_stage("settings", workspace)
    except RegistryError as error:
        # train.initial_weights cannot be looked up; the stage's earlier output still says most.
        said = f"compared with earlier settings, those of now are unknown: {error}"
        console.print(said, markup=False, soft_wrap=True)
    with open_graph(workspace.root) as graph:
        freshness, words = graph.list_freshness(), graph.describe_stages()
    for name, state in freshness.items():
        color = _COLORS[state]
        console.print(f"{name:10} [{color}]{state:10}[/]  [dim]{words[name]}[/]")
    try:
        with short_requests():
            registered = find_registered(params, workspace)
        model = str(registered) if registered else "not registered in this state"
    except RegistryError as error:
        # DVC's answer is shown even while a tracking server does not answer.
        model = f"unknown: {error}"
    console.print(f"{'model':10} {model}", markup=False, soft_wrap=True)
