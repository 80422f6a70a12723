"""One training is one MLflow run: made or continued here, ended as what became of it.

Everything goes through ``MlflowClient`` and a run id; MLflow's global "active run" is bound to a
thread and stays unused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipgan.artifacts import write_json
from clipgan.errors import RegistryError
from clipgan.tracking.environment import (
    ensure_experiment,
    explain_mlflow_errors,
    is_missing,
    load_mlflow,
    open_client,
    sqlite_path,
)
from clipgan.tracking.mlflow_logger import MlflowRunLogger
from clipgan.tracking.provenance import HOST_TAG, describe_process, is_process_dead

REPLACES_TAG = "clipgan.replaces_run"
FINGERPRINT_TAG = "clipgan.fingerprint"
COMPARISON_TAG = "clipgan.compared_models"


@contextmanager
def open_training_run(
    *,
    tracking_uri: str,
    experiment: str,
    run_file: Path,
    fingerprint: str,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    system_metrics: bool = True,
) -> Iterator[MlflowRunLogger]:
    """The run of one training: a new one, or the one that ``run_file`` names.

    ``run_file`` is written as soon as the run exists and removed when it has finished; a training
    that was killed therefore continues its run when it is started again. It is continued only where
    ``fingerprint`` agrees, so that a training with other parameters never writes into it.

    On leaving, the run is FINISHED; KILLED after Ctrl-C or SystemExit (what SIGTERM is turned
    into); FAILED after any other exception. A process killed with SIGKILL leaves it RUNNING until
    it is continued or :func:`sweep_stale_runs` finds it.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    experiment_id = ensure_experiment(client, tracking_uri, experiment)
    run_id = _read_run_file(run_file, fingerprint)
    continued = run_id is not None and _find_run(client, run_id) is not None
    all_tags = {**(tags or {}), FINGERPRINT_TAG: fingerprint, **describe_process()}
    if run_id is None or not continued:
        if run_id is not None:
            print(f"MLflow run {run_id} is not in this store: logging to a new one", flush=True)
        run_id = _create_run(client, experiment_id, run_name, all_tags)
        write_json(run_file, {"run_id": run_id, "fingerprint": fingerprint})
    logger = MlflowRunLogger(client, run_id, continued=continued)
    if continued:
        with explain_mlflow_errors(f"MLflow run {run_id} cannot be continued"):
            client.update_run(run_id, status="RUNNING")
        logger.set_tags(all_tags)
    status = "FAILED"
    try:
        with _system_metrics(tracking_uri, run_id, enabled=system_metrics):
            yield logger
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        logger.flush()
        with explain_mlflow_errors(f"MLflow run {run_id} cannot be ended"):
            client.set_terminated(run_id, status)
    run_file.unlink(missing_ok=True)


@contextmanager
def continue_run(
    run_id: str | None,
    *,
    tracking_uri: str,
    experiment: str,
    tags: Mapping[str, str] | None = None,
) -> Iterator[MlflowRunLogger]:
    """Add to a training's run after its end (evaluation); its status stays as it is.

    Where the store does not have the run (a fresh clone whose files came from DVC, a training
    without tracking), a new run takes its place, is used again the next time, and one line says so.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    known = resolve_run(client, run_id, tracking_uri=tracking_uri, experiment=experiment)
    logger = MlflowRunLogger(client, known, continued=False)
    logger.set_tags(tags or {})
    try:
        yield logger
    finally:
        logger.flush()


@contextmanager
def open_comparison_run(
    *, tracking_uri: str, experiment: str, models: str
) -> Iterator[MlflowRunLogger]:
    """A run of its own for the report of a comparison; it belongs to no training.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    experiment_id = ensure_experiment(client, tracking_uri, experiment)
    run_id = _create_run(client, experiment_id, "comparison", {COMPARISON_TAG: models})
    logger = MlflowRunLogger(client, run_id, continued=False)
    status = "FAILED"
    try:
        yield logger
        status = "FINISHED"
    finally:
        logger.flush()
        with explain_mlflow_errors(f"MLflow run {run_id} cannot be ended"):
            client.set_terminated(run_id, status)


def resolve_run(client: Any, run_id: str | None, *, tracking_uri: str, experiment: str) -> str:
    """``run_id`` if the store has it, else the run that stands in for it (made when needed)."""
    if run_id is not None and _find_run(client, run_id) is not None:
        return run_id
    experiment_id = ensure_experiment(client, tracking_uri, experiment)
    missing = run_id or "untracked"
    if run_id is not None:
        with explain_mlflow_errors("MLflow runs cannot be searched"):
            replacing = client.search_runs(
                [experiment_id], f"tags.`{REPLACES_TAG}` = '{run_id}'", max_results=1
            )
        if replacing:
            return str(replacing[0].info.run_id)
    created = _create_run(client, experiment_id, None, {REPLACES_TAG: missing})
    with explain_mlflow_errors(f"MLflow run {created} cannot be ended"):
        client.set_terminated(created, "FINISHED")
    print(
        f"MLflow run {missing} is not in this store: logging to the new run {created}", flush=True
    )
    return created


def read_run_id(path: Path) -> str | None:
    """The run id of a training's ``mlflow.json``; None where it was trained without tracking.

    Raises:
        RegistryError: the file is missing or damaged.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        run_id = tree["run_id"]
    except FileNotFoundError:
        raise RegistryError(f"{path}: no such file; run the train stage") from None
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"{path}: holds no run_id; run the train stage again") from None
    return None if run_id is None else str(run_id)


def sweep_stale_runs(tracking_uri: str) -> list[str]:
    """End as KILLED the RUNNING runs whose process is gone (kill -9, power cut); gives their ids.

    Runs of another host, or without our tags, are left alone. No store yet: nothing to do.
    """
    database = sqlite_path(tracking_uri)
    if database is not None and not database.exists():
        return []
    client = open_client(tracking_uri)
    with explain_mlflow_errors("stale MLflow runs cannot be swept"):
        experiments = [found.experiment_id for found in client.search_experiments()]
        running = client.search_runs(
            experiments, f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` != ''"
        )
        stale = [run.info.run_id for run in running if is_process_dead(run.data.tags)]
        for run_id in stale:
            client.set_terminated(run_id, "KILLED")
    return stale


def _read_run_file(path: Path, fingerprint: str) -> str | None:
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return str(tree["run_id"]) if tree["fingerprint"] == fingerprint else None
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"{path}: damaged; delete it to log to a new run") from None


def _create_run(client: Any, experiment_id: str, name: str | None, tags: Mapping[str, str]) -> str:
    with explain_mlflow_errors("an MLflow run cannot be made"):
        run = client.create_run(experiment_id, tags=dict(tags), run_name=name)
    return str(run.info.run_id)


def _find_run(client: Any, run_id: str) -> Any | None:
    with explain_mlflow_errors(f"MLflow run {run_id} cannot be read"):
        try:
            run = client.get_run(run_id)
        except load_mlflow().MlflowException as error:
            if is_missing(error):
                return None
            raise
    # Runs deleted in the UI can still be read but take nothing any more.
    return run if run.info.lifecycle_stage == "active" else None


@contextmanager
def _system_metrics(tracking_uri: str, run_id: str, *, enabled: bool) -> Iterator[None]:
    """CPU, memory, disk and (with nvidia-ml-py) GPU every ten seconds, under ``system/``."""
    if not enabled:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=tracking_uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
