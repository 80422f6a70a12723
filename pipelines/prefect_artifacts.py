"""Publishes a flow run's results on Prefect's page: metrics, pictures, a link to the MLflow run."""

from __future__ import annotations

import base64
import json
import os

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_table_artifact,
)

from clipgan.cli.servers import HOST, PORTS
from clipgan.evaluation.report.summary import summarise
from clipgan.evaluation.report.verdict import judge_training
from clipgan.metrics.table import build_table
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import Workspace
from pipelines.console import list_metric_rows, load_outcome

MAX_PICTURE_BYTES = 2_000_000
"""Larger pictures are left out, because each artifact is a row of Prefect's database."""


def publish_evaluation(workspace: Workspace) -> None:
    """Publish metric values as a table and in words, sample grids, and the MLflow run's link."""
    evaluation = load_outcome(workspace)
    table = build_table(evaluation)
    if table.rows:
        summary = (
            *summarise(evaluation.values, table.comparisons),
            *judge_training(workspace.training, evaluation),
        )
        said = "\n".join(f"- {sentence}" for sentence in summary)
        create_table_artifact(
            table=list_metric_rows(table), key="metrics", description=said or "Evaluation"
        )
    for name in ("samples", "before_after"):
        path = workspace.report / f"{name}.png"
        # As a data URI, which needs no file server.
        if path.exists() and path.stat().st_size <= MAX_PICTURE_BYTES:
            encoded = base64.b64encode(path.read_bytes()).decode()
            create_image_artifact(
                image_url=f"data:image/png;base64,{encoded}",
                key=name.replace("_", "-"),
                description=workspace.relative(path),
            )
    link = find_run_link(workspace)
    if link is not None:
        create_link_artifact(link=link, link_text="MLflow run", key="mlflow-run")


def find_run_link(workspace: Workspace) -> str | None:
    """Address of the training's run: on the tracking server, or where ``clipgan ui mlflow`` is."""
    path = workspace.training / "mlflow.json"
    if not path.exists():
        return None
    run_id = json.loads(path.read_text(encoding="utf-8")).get("run_id")
    if run_id is None:
        return None
    uri = resolve_tracking_uri(workspace.root, os.environ)
    server = uri if uri.startswith("http") else f"http://{HOST}:{PORTS['mlflow']}"
    # The page finds the experiment of a run by itself.
    return f"{server.rstrip('/')}/#/runs/{run_id}"
