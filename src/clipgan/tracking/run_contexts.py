"""Context managers for the MLflow runs that stages write to.

Inside the block a thread sends what is logged; at its end the run gets the status that fits how the
block ended. A training's spool lies in its own folder, beside its checkpoints, so that a resumed
training finds its run whatever was trained in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from clipgan.resume_state import has_waiting
from clipgan.tracking.mlflow_logger import MlflowRunLogger
from clipgan.tracking.mlflow_run import describe_stand_in
from clipgan.tracking.provenance import describe_process
from clipgan.tracking.sender import Sender, short_requests
from clipgan.tracking.spool import (
    FINISHED,
    RUNNING,
    RunHeader,
    Spool,
    find_spools,
    load_header,
    make_key,
    now_ms,
)
from clipgan.tracking.system_metrics import system_metrics

FINISH_SECONDS = 30.0
"""Time to send the rest of a run that has ended by itself."""

STOP_SECONDS = 10.0
"""Time to send the rest of a run that was told to stop: whoever stops it will not wait long."""

KILLED, FAILED = "KILLED", "FAILED"
COMPARISON_TAG = "clipgan.compared_models"


@contextmanager
def open_training_run(
    *,
    tracking_uri: str,
    experiment: str,
    folder: Path,
    fingerprint: str,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    sample_system: bool = True,
    on_answer: Callable[[], None] | None = None,
) -> Iterator[MlflowRunLogger]:
    """The run of one training: a new one, or the one that ``folder`` names.

    MLflow need not answer: the run is made when it does.

    On leaving, the run is FINISHED; KILLED after Ctrl-C or SystemExit (what SIGTERM is turned
    into); FAILED after any other exception. A process killed with SIGKILL leaves it RUNNING until
    it is continued or :func:`~clipgan.tracking.mlflow_run.sweep_stale_runs` finds it. What MLflow
    has not taken by then waits in ``folder``, which is removed once a finished run is all sent and
    nothing else is in it.

    Args:
        folder: used by this training alone, so that no other one writes into its run.
        on_answer: called once, in the sending thread, when MLflow has taken something; may fail.

    Raises:
        RegistryError: ``folder`` cannot be written.
    """
    header = RunHeader(make_key(), experiment, run_name, now_ms(), fingerprint)
    spool = Spool(folder, load_header(folder) or header)
    with _sent_beside(spool, tracking_uri, on_answer) as run:
        run.set_tags({**(tags or {}), **describe_process()})
        run.set_status(RUNNING)
        with _ending(run), system_metrics(spool, enabled=sample_system):
            yield run
    if folder.exists():
        spool.remove_if_finished()


@contextmanager
def continue_run(
    reference: str | None, *, tracking_uri: str, experiment: str, work: Path
) -> Iterator[MlflowRunLogger]:
    """Add to a training's run after its end (evaluation); its status stays as it is.

    Args:
        reference: as :func:`~clipgan.tracking.mlflow_run.read_run_id` returns it.
        work: parent of the folders of such additions. Folders that were sent completely are
            removed, except this run's, which keeps an evaluation from logging a point twice.

    Raises:
        RegistryError: ``work`` cannot be written.
    """
    header = describe_stand_in(reference, experiment)
    folder = work / header.key[:16]
    for other in find_spools(work.parent):
        known = load_header(other) if other.parent == work and other != folder else None
        if known is not None and not has_waiting(other):
            Spool(other, known).remove()
    spool = Spool(folder, load_header(folder) or header)
    with _sent_beside(spool, tracking_uri, renewed=True) as run:
        yield run


@contextmanager
def open_comparison_run(
    *, tracking_uri: str, experiment: str, models: str, work: Path
) -> Iterator[MlflowRunLogger]:
    """A run of its own for the report of a comparison; it belongs to no training.

    Raises:
        RegistryError: ``work`` cannot be written.
    """
    header = RunHeader(make_key(), experiment, f"comparison of {models}", now_ms())
    spool = Spool(work / header.key[:16], header)
    with _sent_beside(spool, tracking_uri) as run, _ending(run):
        run.set_tags({COMPARISON_TAG: models})
        yield run
    if not has_waiting(spool.folder):
        spool.remove()


@contextmanager
def _sent_beside(
    spool: Spool,
    tracking_uri: str,
    on_answer: Callable[[], None] | None = None,
    *,
    renewed: bool = False,
) -> Iterator[MlflowRunLogger]:
    """Send what the block logs while it runs, and the rest within seconds when it ends."""
    sender = Sender(spool, tracking_uri, on_answer)
    with short_requests():
        sender.start()
        seconds = STOP_SECONDS
        try:
            yield MlflowRunLogger(spool, sender, renewed=renewed)
            seconds = FINISH_SECONDS
        finally:
            sender.finish(seconds)
            if spool.num_unwritten:
                print(f"{spool.num_unwritten} records are lost: the disk is full", flush=True)
            if (waiting := spool.count_waiting()).records:
                print(
                    f"{waiting} wait for MLflow in {spool.folder}: "
                    "`clipgan sync` sends them, the next `clipgan run` too",
                    flush=True,
                )


@contextmanager
def _ending(run: MlflowRunLogger) -> Iterator[None]:
    status = FAILED
    try:
        yield
        status = FINISHED
    except (KeyboardInterrupt, SystemExit):
        status = KILLED
        raise
    finally:
        run.set_status(status)
