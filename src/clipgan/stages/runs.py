"""The MLflow runs that the stages ``train`` and ``evaluate`` write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clipgan.config import Params
from clipgan.run_logger import RunLogger
from clipgan.tracking.environment import resolve_tracking_uri

if TYPE_CHECKING:
    from clipgan.stages.catalog import Workspace


@contextmanager
def open_run(
    params: Params, workspace: Workspace, initial_folder: Path | None
) -> Iterator[RunLogger]:
    """The MLflow run of a training: a new one, or that of the training that goes on.

    ``initial_folder``: the bundle that the training starts from.
    """
    from clipgan.tracking.mlflow_run import open_training_run, sweep_stale_runs
    from clipgan.tracking.provenance import collect_run_tags, read_data_digest

    # Before any run is made: a start that does not exist or damaged shards end here.
    fingerprint = _fingerprint_training(params, workspace, initial_folder)
    uri = resolve_tracking_uri(workspace.root, os.environ)
    for run_id in sweep_stale_runs(uri):
        print(f"MLflow run {run_id}: its process is gone, ended as KILLED", flush=True)
    with open_training_run(
        tracking_uri=uri,
        experiment=params.register_model.model_name,
        run_file=workspace.work("train") / "mlflow.json",
        fingerprint=fingerprint,
        tags=collect_run_tags(workspace.root, os.environ),
    ) as logger:
        for name, folder in (("images", workspace.images), ("features", workspace.features)):
            logger.log_dataset(name, folder, read_data_digest(folder), context="training")
        yield logger


def _fingerprint_training(params: Params, workspace: Workspace, initial_folder: Path | None) -> str:
    from clipgan.data.shards import load_manifest
    from clipgan.training.fingerprint import compute_training_fingerprint

    return compute_training_fingerprint(
        params.train,
        images_fingerprint=load_manifest(workspace.images).fingerprint,
        features_dir=workspace.features,
        initial_folder=initial_folder,
    )


@contextmanager
def reopen_run(params: Params, workspace: Workspace) -> Iterator[RunLogger]:
    """The MLflow run of the training that is evaluated."""
    from clipgan.tracking.mlflow_run import continue_run, read_run_id

    with continue_run(
        read_run_id(workspace.training / "mlflow.json"),
        tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
        experiment=params.register_model.model_name,
    ) as logger:
        yield logger
