"""What a stage may tell the outside about a run; :mod:`clipgan.tracking` gives it to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class RunLogger(Protocol):
    """Receiver of parameters, metrics and files of one training run."""

    run_id: str | None
    """The MLflow run's id; None where nothing is tracked."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Flat names to values; logging the same value twice is fine."""

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """Numbers at a point of training; may be buffered until :meth:`flush`."""

    def log_file(self, path: Path, folder: str) -> None:
        """A file of the run (sample grid, report), kept under ``folder``."""

    def flush(self) -> None:
        """Hand over all that is buffered. Called before every checkpoint, so that a resumed run
        logs no point twice and loses none."""


class NullRunLogger:
    """Logs nothing: for tests and for stages that make no run."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, object]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def flush(self) -> None: ...


NULL_LOGGER = NullRunLogger()
