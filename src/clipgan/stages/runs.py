"""The MLflow runs of the stages ``train`` and ``evaluate``, and records that wait for MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipgan.config import Params, TrainConfig
from clipgan.resume_state import has_waiting
from clipgan.run_logger import RunLogger
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.tracking.spool import Spool, Waiting, find_spools, load_header
from clipgan.workspace import Workspace


@contextmanager
def open_run(
    params: Params, workspace: Workspace, initial_folder: Path | None
) -> Iterator[RunLogger]:
    """Open the MLflow run of a training, which is a new one unless the training is continued.

    Args:
        initial_folder: the bundle that the training starts from.
    """
    from clipgan.tracking.provenance import collect_run_tags, read_data_digest
    from clipgan.tracking.run_contexts import open_training_run

    # A missing start or damaged shards are refused here, before a run is made.
    fingerprint = _fingerprint_training(params, workspace, initial_folder)
    uri = resolve_tracking_uri(workspace.root, os.environ)
    with open_training_run(
        tracking_uri=uri,
        experiment=params.register_model.model_name,
        folder=workspace.work("train") / fingerprint[:16],
        fingerprint=fingerprint,
        run_name=name_training(params.train, fingerprint),
        tags=collect_run_tags(workspace.root, os.environ),
        on_answer=lambda: _sweep(uri),
    ) as logger:
        for name, folder in (("images", workspace.images), ("features", workspace.features)):
            logger.log_dataset(name, folder, read_data_digest(folder), context="training")
        yield logger


def name_training(config: TrainConfig, fingerprint: str) -> str:
    """Name a training so that it can be told from others in MLflow's list."""
    return (
        f"{config.family} {config.resolution_px} px, {config.total_images:,} images, "
        f"seed {config.seed}, {fingerprint[:8]}"
    )


@contextmanager
def reopen_run(params: Params, workspace: Workspace) -> Iterator[RunLogger]:
    """Open the MLflow run of the training that is evaluated."""
    from clipgan.tracking.mlflow_run import read_run_id
    from clipgan.tracking.run_contexts import continue_run

    with continue_run(
        read_run_id(workspace.training / "mlflow.json"),
        tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
        experiment=params.register_model.model_name,
        work=workspace.work("tracking"),
    ) as logger:
        yield logger


def is_anything_waiting(workspace: Workspace) -> bool:
    """Whether records of this project wait for MLflow; the server is not asked."""
    return any(has_waiting(folder) for folder in find_spools(workspace.work("train").parent))


def count_waiting(workspace: Workspace) -> Waiting:
    """Count what waits for MLflow of all runs of this project; the server is not asked."""
    records = points = files = 0
    for folder in find_spools(workspace.work("train").parent):
        header = load_header(folder) if has_waiting(folder) else None
        if header is not None:
            waiting = Spool(folder, header).count_waiting()
            records, points = records + waiting.records, points + waiting.points
            files += waiting.files
    return Waiting(records, points, files)


def send_waiting(workspace: Workspace) -> int:
    """Send MLflow what waits, print a line for each run, and return the number of runs.

    Raises:
        RegistryError: the store does not answer; what was not sent goes on waiting.
    """
    from clipgan.tracking.sender import send_waiting_runs

    uri = resolve_tracking_uri(workspace.root, os.environ)
    sent = send_waiting_runs(workspace.work("train").parent, uri)
    for header, waiting in sent:
        print(f"MLflow run {header.run_id}: sent {waiting}", flush=True)
    return len(sent)


def _sweep(tracking_uri: str) -> None:
    from clipgan.tracking.mlflow_run import sweep_stale_runs

    for run_id in sweep_stale_runs(tracking_uri):
        print(f"MLflow run {run_id}: its process is gone, ended as KILLED", flush=True)


def _fingerprint_training(params: Params, workspace: Workspace, initial_folder: Path | None) -> str:
    from clipgan.data.shards import load_manifest
    from clipgan.training.fingerprint import compute_training_fingerprint

    return compute_training_fingerprint(
        params.train,
        images_fingerprint=load_manifest(workspace.images).fingerprint,
        features_dir=workspace.features,
        initial_folder=initial_folder,
    )
