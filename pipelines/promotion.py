"""Registration: outside DVC's graph, because it acts on the registry.

A promotion emits the event ``clipgan.model.promoted`` that Prefect automations can wait for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.states import Completed

from clipgan.cli.models import explained_outage, find_champion, find_registered
from clipgan.config import load_params
from clipgan.errors import StageFailedError
from clipgan.workspace import find_workspace
from pipelines.stages import CACHED, cancelled_by_ctrl_c, run_logged

PROMOTED_EVENT = "clipgan.model.promoted"


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
@cancelled_by_ctrl_c
def register_generator(root: Path, name: str = "register") -> Any:
    """``clipgan register`` in its own process; skipped where the registry is up to date."""
    workspace = find_workspace(root)
    params = load_params(workspace.params_file)
    with explained_outage(workspace):
        outcome = find_registered(params, workspace)
        if outcome is not None:
            return Completed(name=CACHED, message=str(outcome))
        before = find_champion(params, workspace)
    try:
        run_logged([sys.executable, "-m", "clipgan", "register"], root, name)
    except StageFailedError:
        with explained_outage(workspace):
            find_champion(params, workspace)  # raises if the store can no longer be used
        raise
    outcome = find_registered(params, workspace)
    if outcome is not None and outcome.is_champion and outcome.champion != before:
        emit_promotion(outcome.model_name, outcome.version, outcome.reason)
    return Completed(message=str(outcome))


def emit_promotion(model_name: str, version: int, reason: str) -> None:
    """Tell Prefect's automations that a model has a new champion."""
    emit_event(
        event=PROMOTED_EVENT,
        resource={
            "prefect.resource.id": f"clipgan.model.{model_name}",
            "prefect.resource.name": model_name,
        },
        payload={"version": version, "reason": reason},
    )
