"""The :class:`~clipgan.run_logger.RunLogger` that writes to an MLflow run.

Metrics are buffered: a call for each loss of each step would cost more than a small training step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clipgan.tracking.environment import explain_mlflow_errors, load_mlflow

BUFFER_POINTS = 500
BUFFER_SECONDS = 15.0
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_DIGEST_LENGTH = 36
_SYSTEM_PREFIX = "system/"


class MlflowRunLogger:
    """Logs into one run; ``images_seen`` is the step.

    In a continued run, points at or before the last logged step of their metric are dropped: a
    training that was killed repeats the steps since its checkpoint, and no point shall stand twice.
    """

    def __init__(self, client: Any, run_id: str, *, continued: bool) -> None:
        self.run_id: str | None = run_id
        self._client, self._id = client, run_id
        self._buffer: list[Any] = []
        self._flushed_at = time.monotonic()
        self._logged_until = _find_last_steps(client, run_id) if continued else {}

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, nested ones as ``section.key``.

        MLflow's parameters cannot change: a value that differs from the logged one (a monitoring
        key edited before a resume) is kept as a tag ``changed.NAME``.
        """
        flat = flatten_params(params)
        with explain_mlflow_errors(f"MLflow run {self._id} takes no parameters"):
            known = self._client.get_run(self._id).data.params
            entity = load_mlflow().entities.Param
            new = [entity(name, value) for name, value in flat.items() if name not in known]
            for start in range(0, len(new), _PARAMS_PER_CALL):
                self._client.log_batch(self._id, params=new[start : start + _PARAMS_PER_CALL])
        changed = {name: value for name, value in flat.items() if known.get(name, value) != value}
        self.set_tags({f"changed.{name}": value for name, value in changed.items()})

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """Buffer one point of each metric; sends the buffer when it is large or old."""
        entity = load_mlflow().entities.Metric
        now = int(time.time() * 1000)
        self._buffer.extend(
            entity(name, float(value), now, images_seen)
            for name, value in metrics.items()
            if images_seen > self._logged_until.get(name, -1)
        )
        is_old = time.monotonic() - self._flushed_at > BUFFER_SECONDS
        if is_old or len(self._buffer) >= BUFFER_POINTS:
            self.flush()

    def log_file(self, path: Path, folder: str) -> None:
        """Copy a file to the run's artifacts under ``folder`` (empty: the top)."""
        with explain_mlflow_errors(f"{path} cannot be logged to MLflow run {self._id}"):
            self._client.log_artifact(self._id, str(path), folder or None)

    def log_dataset(self, name: str, source: Path, digest: str, *, context: str) -> None:
        """Link the data that went in.

        Args:
            name: shown name, such as ``images``.
            source: the folder it was read from.
            digest: the DVC hash or our fingerprint; MLflow shows the first 36 characters, the tag
                ``clipgan.fingerprint`` holds all of it.
            context: what it was used for, such as ``training``.
        """
        entities = load_mlflow().entities
        dataset = entities.Dataset(
            name=name,
            digest=digest[:_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": str(source)}),
        )
        tags = [
            entities.InputTag("mlflow.data.context", context),
            entities.InputTag("clipgan.fingerprint", digest),
        ]
        with explain_mlflow_errors(f"MLflow run {self._id} takes no data set"):
            self._client.log_inputs(self._id, datasets=[entities.DatasetInput(dataset, tags)])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags of the run."""
        entity = load_mlflow().entities.RunTag
        items = [entity(name, value) for name, value in tags.items()]
        with explain_mlflow_errors(f"MLflow run {self._id} takes no tags"):
            for start in range(0, len(items), _PARAMS_PER_CALL):
                self._client.log_batch(self._id, tags=items[start : start + _PARAMS_PER_CALL])

    def flush(self) -> None:
        """Send all buffered points."""
        with explain_mlflow_errors(f"MLflow run {self._id} takes no metrics"):
            while self._buffer:
                self._client.log_batch(self._id, metrics=self._buffer[:_METRICS_PER_CALL])
                del self._buffer[:_METRICS_PER_CALL]
        self._flushed_at = time.monotonic()


def flatten_params(tree: Mapping[str, object]) -> dict[str, str]:
    """``{"train": {"seed": 0}}`` -> ``{"train.seed": "0"}``; lists become JSON."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        node = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if isinstance(node, Mapping):
            flat.update({f"{name}.{key}": text for key, text in flatten_params(node).items()})
        elif isinstance(node, Sequence) and not isinstance(node, str):
            flat[name] = json.dumps(list(node), ensure_ascii=False)
        else:
            flat[name] = str(node)
    return flat


def _find_last_steps(client: Any, run_id: str) -> dict[str, int]:
    with explain_mlflow_errors(f"the metrics of MLflow run {run_id} cannot be read"):
        names = client.get_run(run_id).data.metrics
        return {
            name: max(point.step for point in client.get_metric_history(run_id, name))
            for name in names
            if not name.startswith(_SYSTEM_PREFIX)
        }
