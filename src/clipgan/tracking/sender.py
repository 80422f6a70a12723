"""Sends a run's records to MLflow: from a thread beside the work, or at once.

Only the end of a run waits for it, and for a bounded time. MLflow's own retries, which add up to
minutes, are switched off meanwhile: what fails is sent again from the spool.
"""

from __future__ import annotations

import json
import logging
import os
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from clipgan.errors import RegistryError
from clipgan.resume_state import has_waiting
from clipgan.tracking.mlflow_run import find_or_make_run, is_active
from clipgan.tracking.mlflow_store import explain_mlflow_errors, load_mlflow, open_client
from clipgan.tracking.spool import (
    DATASET,
    FILE,
    METRICS,
    PARAMS,
    RUNNING,
    STATUS,
    TAGS,
    RunHeader,
    Spool,
    Waiting,
    find_spools,
    load_header,
)

SEND_INTERVAL_SECONDS = 15.0
"""Time between two batches, and between two attempts at a store that does not answer."""

REQUEST_SECONDS = 15
"""How long one answer of a tracking server may take."""

_ONE_SHORT_TRY = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
}
_POINTS_PER_CALL = 1000
_ENTRIES_PER_CALL = 100
_DIGEST_LENGTH = 36
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""Error codes with which the store refuses a record for good."""

Record = Mapping[str, Any]

logger = logging.getLogger(__name__)


def send(spool: Spool, tracking_uri: str) -> None:
    """Send all records that wait; those that were sent are not sent again if a later one fails.

    A record that the store refuses for good is skipped with a warning.

    Raises:
        RegistryError: the store does not answer, or another process sends this run.
    """
    try:
        lock = spool.lock_sending().acquire()
    except Timeout:
        raise RegistryError(f"{spool.folder}: another process sends it to MLflow") from None
    with lock:
        client = open_client(tracking_uri)
        spool.bind(find_or_make_run(client, tracking_uri, spool.header))
        for batch, position in _read_batches(spool):
            _send_batch(client, spool, batch)
            spool.acknowledge(position)


def send_waiting_runs(work: Path, tracking_uri: str) -> list[tuple[RunHeader, Waiting]]:
    """Send every run that waits under ``data/.work``; returns each with what was sent.

    Raises:
        RegistryError: the store does not answer.
    """
    sent = []
    for folder in find_spools(work):
        header = load_header(folder) if has_waiting(folder) else None
        if header is not None:
            spool = Spool(folder, header)
            waiting = spool.count_waiting()
            with short_requests():
                send(spool, tracking_uri)
            sent.append((spool.header, waiting))
            spool.remove_if_finished()
    return sent


class Sender:
    """Sends a spool every few seconds until :meth:`finish`.

    Args:
        on_answer: called once, in the thread, when MLflow has taken something.
    """

    def __init__(
        self, spool: Spool, tracking_uri: str, on_answer: Callable[[], None] | None = None
    ) -> None:
        self._spool, self._uri, self._on_answer = spool, tracking_uri, on_answer
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._fails = False
        # A daemon: a store that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)

    def start(self) -> None:
        """Start the thread. MLflow is imported first: two threads must not import it at once."""
        load_mlflow()
        self._thread.start()

    def wait_for_first_try(self, seconds: float) -> None:
        """Wait until the store has answered or failed once, for at most ``seconds``."""
        self._tried.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Send the rest, for at most ``seconds``."""
        self._stop.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            stopping = self._stop.is_set()
            self._try()
            self._tried.set()
            if stopping:
                return
            self._stop.wait(SEND_INTERVAL_SECONDS)

    def _try(self) -> None:
        try:
            # The first time even if nothing waits: MLflow shows the run from the start.
            if not self._tried.is_set() or has_waiting(self._spool.folder):
                send(self._spool, self._uri)
            if self._on_answer is not None:
                on_answer, self._on_answer = self._on_answer, None
                on_answer()
        # Whatever has failed, the training goes on and the records are on the disk.
        except Exception as error:
            if not self._fails:
                # An HTTP client's message repeats the address three times.
                reason = textwrap.shorten(str(error) or type(error).__name__, 200)
                logger.warning(
                    "MLflow takes nothing now (%s): what is logged waits in %s",
                    reason,
                    self._spool.folder,
                )
            self._fails = True
        else:
            if self._fails:
                logger.warning("MLflow takes what is logged again")
            self._fails = False


@contextmanager
def short_requests() -> Iterator[None]:
    """One short try for each request to a tracking server, in the whole process."""
    before = {name: os.environ.get(name) for name in _ONE_SHORT_TRY}
    os.environ.update(_ONE_SHORT_TRY)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_batches(spool: Spool) -> Iterator[tuple[list[Record], int]]:
    """Records to send in one call, with the position after them: several of metrics, else one."""
    batch: list[Record] = []
    points, reached = 0, spool.position
    for record, position in spool.read(reached):
        size = len(record["values"]) if record["kind"] == METRICS else _POINTS_PER_CALL
        if batch and points + size > _POINTS_PER_CALL:
            yield batch, reached
            batch, points = [], 0
        batch.append(record)
        points, reached = points + size, position
    if batch:
        yield batch, reached


def _send_batch(client: Any, spool: Spool, batch: Sequence[Record]) -> None:
    run_id = str(spool.header.run_id)
    kind = str(batch[0]["kind"])
    try:
        with explain_mlflow_errors(f"MLflow run {run_id} takes no {kind}"):
            if kind == METRICS:
                _send_metrics(client, run_id, batch)
            else:
                _SENDERS[kind](client, run_id, spool, batch[0])
    except RegistryError as error:
        code = getattr(error.__cause__, "error_code", None)
        if code not in _REFUSED or not is_active(client, run_id):
            raise
        if len(batch) > 1:
            for record in batch:
                _send_batch(client, spool, [record])
        else:
            logger.warning("%s: skipped", error)
    except OSError as error:
        # A file cannot be copied to the store: its disk is full, or the connection broke.
        raise RegistryError(f"MLflow run {run_id} takes no {kind}: {error}") from error


def _send_metrics(client: Any, run_id: str, batch: Sequence[Record]) -> None:
    entity = load_mlflow().entities.Metric
    points = [
        entity(name, float(value), record["time_ms"], record["step"])
        for record in batch
        for name, value in record["values"].items()
    ]
    for start in range(0, len(points), _POINTS_PER_CALL):
        client.log_batch(run_id, metrics=points[start : start + _POINTS_PER_CALL])


def _send_params(client: Any, run_id: str, _spool: Spool, record: Record) -> None:
    entity = load_mlflow().entities.Param
    values = record["values"]
    known = client.get_run(run_id).data.params
    new = [entity(name, value) for name, value in values.items() if name not in known]
    for start in range(0, len(new), _ENTRIES_PER_CALL):
        client.log_batch(run_id, params=new[start : start + _ENTRIES_PER_CALL])
    changed = {name: text for name, text in values.items() if known.get(name, text) != text}
    _set_tags(client, run_id, {f"changed.{name}": text for name, text in changed.items()})


def _send_tags(client: Any, run_id: str, _spool: Spool, record: Record) -> None:
    _set_tags(client, run_id, record["values"])


def _set_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    entity = load_mlflow().entities.RunTag
    items = [entity(name, value) for name, value in tags.items()]
    for start in range(0, len(items), _ENTRIES_PER_CALL):
        client.log_batch(run_id, tags=items[start : start + _ENTRIES_PER_CALL])


def _send_file(client: Any, run_id: str, spool: Spool, record: Record) -> None:
    path = spool.find_file(record)
    if path.exists():
        client.log_artifact(run_id, str(path), record["folder"] or None)
    else:
        logger.warning("%s is gone: %s stays unlogged", path, record["source"])


def _send_dataset(client: Any, run_id: str, _spool: Spool, record: Record) -> None:
    entities = load_mlflow().entities
    dataset = entities.Dataset(
        name=record["name"],
        digest=record["digest"][:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": record["source"]}),
    )
    tags = [
        entities.InputTag("mlflow.data.context", record["context"]),
        entities.InputTag("clipgan.fingerprint", record["digest"]),
    ]
    client.log_inputs(run_id, datasets=[entities.DatasetInput(dataset, tags)])


def _send_status(client: Any, run_id: str, _spool: Spool, record: Record) -> None:
    if record["status"] == RUNNING:
        client.update_run(run_id, status=RUNNING)
    else:
        client.set_terminated(run_id, record["status"], end_time=record["time_ms"])


_SENDERS: Mapping[str, Callable[[Any, str, Spool, Record], None]] = {
    PARAMS: _send_params,
    TAGS: _send_tags,
    FILE: _send_file,
    DATASET: _send_dataset,
    STATUS: _send_status,
}
