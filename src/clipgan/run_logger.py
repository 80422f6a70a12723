"""What a stage may log about a run; :mod:`clipgan.tracking` sends it to MLflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class RunLogger:
    """Receiver of parameters, metrics and files of one training run; this one logs nothing."""

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; None where nothing is tracked or MLflow has not answered."""
        return None

    @property
    def run_key(self) -> str | None:
        """Identifies the run while it has no id; None where nothing is tracked."""
        return None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Flat names to values; logging the same value twice is fine."""

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """Numbers at a point of training; a repeated point is logged once."""

    def log_file(self, path: Path, folder: str) -> None:
        """A file of the run (sample grid, report), kept under ``folder``."""

    def flush(self) -> None:
        """Write to the disk what has not been written. Called after every checkpoint."""


NULL_LOGGER = RunLogger()


class UnfailingRunLogger(RunLogger):
    """Passes everything on to a logger; a failure of it becomes a warning."""

    def __init__(self, inner: RunLogger) -> None:
        self._inner = inner

    @property
    def run_id(self) -> str | None:
        with tolerated("the run's id is not known"):
            return self._inner.run_id
        return None

    @property
    def run_key(self) -> str | None:
        with tolerated("the run's key is not known"):
            return self._inner.run_key
        return None

    def log_params(self, params: Mapping[str, object]) -> None:
        with tolerated("parameters are not logged"):
            self._inner.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        with tolerated(f"metrics after {images_seen:,} images are not logged"):
            self._inner.log_metrics(metrics, images_seen)

    def log_file(self, path: Path, folder: str) -> None:
        with tolerated(f"{path} is not logged"):
            self._inner.log_file(path, folder)

    def flush(self) -> None:
        with tolerated("what was logged is not all on the disk"):
            self._inner.flush()


def log_files(run: RunLogger, source: Path, folder: str) -> None:
    """Log every file of ``source`` into ``folder`` of the run, and wait until they are kept."""
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        run.log_file(path, folder)
    run.flush()


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """Turn every exception of the block into a warning that says ``what`` was lost.

    For what a training does not need: tracking, and samples and evaluations on the way.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        logger.warning("%s (%s: %s)", what, type(error).__name__, reason)
