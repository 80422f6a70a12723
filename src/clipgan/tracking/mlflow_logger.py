"""The :class:`~clipgan.run_logger.RunLogger` of an MLflow run. It writes to the run's spool.

No call waits for MLflow, and none fails because of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from clipgan.run_logger import RunLogger
from clipgan.tracking.sender import Sender
from clipgan.tracking.spool import DATASET, METRICS, PARAMS, STATUS, TAGS, Spool

RUN_ID_SECONDS = 10.0
"""How long to wait for MLflow's first answer when the run's id is asked for."""


class MlflowRunLogger(RunLogger):
    """Logs into one run; ``images_seen`` is the step.

    A training that was killed or rolled back repeats steps: of a metric at a step only the first
    point is logged. With ``renewed`` a later point is added where its value differs, because an
    evaluation of the same step may have another protocol.
    """

    def __init__(self, spool: Spool, sender: Sender, *, renewed: bool = False) -> None:
        self._spool, self._sender, self._renewed = spool, sender, renewed
        self._known: dict[int, dict[str, float]] = {}
        for record, _ in spool.read():
            if record["kind"] == METRICS:
                self._known.setdefault(record["step"], {}).update(record["values"])

    @property
    def run_key(self) -> str:
        """Identifies the run before MLflow has given it an id."""
        return self._spool.header.key

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None where MLflow does not answer."""
        self._sender.wait_for_first_try(RUN_ID_SECONDS)
        return self._spool.header.run_id

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; lists become JSON, other values text.

        MLflow's parameters cannot change: a value that differs from the logged one (a monitoring
        key edited before a resume) is kept as a tag ``changed.NAME``.
        """
        self._spool.append(
            PARAMS, values={name: _format_param(value) for name, value in params.items()}
        )

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """Log a point of each metric that has none at this step yet."""
        known = self._known.setdefault(images_seen, {})
        values = {
            name: float(value)
            for name, value in metrics.items()
            if name not in known or (self._renewed and not _is_same(known[name], float(value)))
        }
        if values:
            known.update(values)
            self._spool.append(METRICS, step=images_seen, values=values)

    def log_file(self, path: Path, folder: str) -> None:
        """Copy a file to the run's artifacts under ``folder`` (empty: the top)."""
        self._spool.append_file(path, folder)

    def log_dataset(self, name: str, source: Path, digest: str, *, context: str) -> None:
        """Record which data the run has read.

        Args:
            name: shown name, such as ``images``.
            source: the folder it was read from.
            digest: the DVC hash or our fingerprint; MLflow shows the first 36 characters, the tag
                ``clipgan.fingerprint`` holds all of it.
            context: what it was used for, such as ``training``.
        """
        self._spool.append(DATASET, name=name, source=str(source), digest=digest, context=context)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags of the run."""
        if tags:
            self._spool.append(TAGS, values=dict(tags))

    def set_status(self, status: str) -> None:
        """RUNNING, or how the run has ended: FINISHED, FAILED or KILLED."""
        self._spool.append(STATUS, status=status)

    def flush(self) -> None:
        """Write what did not fit on a full disk; everything else has been written already."""
        self._spool.flush()


def _is_same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _format_param(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
