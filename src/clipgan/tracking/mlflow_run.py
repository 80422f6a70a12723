"""Runs in MLflow's store: found by id or key, made where they are missing, swept when stale.

Everything goes through ``MlflowClient`` and a run id; MLflow's global "active run" is bound to a
thread and stays unused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipgan.errors import RegistryError
from clipgan.tracking.mlflow_store import (
    ensure_experiment,
    explain_mlflow_errors,
    is_missing,
    load_mlflow,
    open_client,
    sqlite_path,
)
from clipgan.tracking.provenance import HOST_TAG, is_process_dead
from clipgan.tracking.spool import RunHeader, make_key, now_ms

KEY_TAG = "clipgan.run_key"
FINGERPRINT_TAG = "clipgan.fingerprint"


def find_or_make_run(client: Any, tracking_uri: str, header: RunHeader) -> str:
    """Id of the run that ``header`` names by its id or else by its key, or of a new one.

    The key is searched before a run is made, because an earlier answer of the store may have been
    lost.

    Raises:
        RegistryError: the store cannot be used, or the experiment was deleted.
    """
    if header.run_id is not None and is_active(client, header.run_id):
        return header.run_id
    experiment_id = ensure_experiment(client, tracking_uri, header.experiment)
    with explain_mlflow_errors("MLflow runs cannot be searched"):
        runs = client.search_runs(
            [experiment_id], f"tags.`{KEY_TAG}` = '{header.key}'", max_results=1
        )
    if runs:
        return str(runs[0].info.run_id)
    tags = {KEY_TAG: header.key}
    if header.fingerprint is not None:
        tags[FINGERPRINT_TAG] = header.fingerprint
    with explain_mlflow_errors("an MLflow run cannot be made"):
        run = client.create_run(experiment_id, header.created_ms, tags, header.name)
        created = str(run.info.run_id)
        if header.stands_in:
            client.set_terminated(created, "FINISHED")
    if header.run_id is not None:
        print(f"MLflow run {header.run_id} is not in this store: logging to {created}", flush=True)
    return created


def describe_stand_in(reference: str | None, experiment: str) -> RunHeader:
    """The header for what :func:`read_run_id` returns.

    Where the store does not have that run (a fresh clone whose files came from DVC, a training
    without tracking), a new run takes its place and is used again the next time.
    """
    name = "untracked training" if reference is None else f"stand-in for run {reference[:8]}"
    key = reference or make_key()
    return RunHeader(key, experiment, name, now_ms(), run_id=reference, stands_in=True)


def read_run_id(path: Path) -> str | None:
    """The run of a training's ``mlflow.json``: its id, or its key where MLflow had not answered.

    :func:`describe_stand_in` takes both. None where it was trained without tracking.

    Raises:
        RegistryError: the file is missing or damaged.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        run_id = tree["run_id"] or tree.get("run_key")
    except FileNotFoundError:
        raise RegistryError(f"{path}: no such file; run the train stage") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RegistryError(f"{path}: holds no run_id; run the train stage again") from None
    return None if run_id is None else str(run_id)


def sweep_stale_runs(tracking_uri: str) -> list[str]:
    """Mark as KILLED the RUNNING runs whose process is gone (kill -9, power cut).

    Runs of another host, or without our tags, are left alone.

    Returns:
        The ids of these runs; none where there is no store yet.
    """
    database = sqlite_path(tracking_uri)
    if database is not None and not database.exists():
        return []
    client = open_client(tracking_uri)
    with explain_mlflow_errors("stale MLflow runs cannot be swept"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        running = client.search_runs(
            experiments, f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` != ''"
        )
        stale = [run.info.run_id for run in running if is_process_dead(run.data.tags)]
        for run_id in stale:
            client.set_terminated(run_id, "KILLED")
    return stale


def is_active(client: Any, run_id: str) -> bool:
    """Whether the store has the run. A run deleted in MLflow's page can be read, not written to."""
    with explain_mlflow_errors(f"MLflow run {run_id} cannot be read"):
        try:
            run = client.get_run(run_id)
        except load_mlflow().MlflowException as error:
            if is_missing(error):
                return False
            raise
    return bool(run.info.lifecycle_stage == "active")
