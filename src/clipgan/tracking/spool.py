"""What a run logs is written to disk first; it is sent to MLflow from here, now or later.

A folder holds ``mlflow.json``, which names the run, and ``spool/``: ``records.jsonl`` with one JSON
object a line, only ever appended to; ``position.json`` with the number of its bytes that MLflow has
taken; ``files/`` with the files to send. Nothing here imports MLflow.

A record that is sent twice (MLflow took it and its answer was lost) is stored once: MLflow
keeps one point of equal name, step, time and value, and the time is the record's.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from clipgan.artifacts import link_file, write_json
from clipgan.errors import RegistryError
from clipgan.resume_state import LOG_FILE, LOG_FOLDER, POSITION_FILE, RECORDS_FILE

METRICS, PARAMS, TAGS, FILE, DATASET, STATUS = (
    "metrics",
    "params",
    "tags",
    "file",
    "dataset",
    "status",
)
RUNNING, FINISHED = "RUNNING", "FINISHED"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunHeader:
    """Which run the records belong to.

    Attributes:
        key: a tag of the run, by which it is found in MLflow before ``run_id`` is known.
        experiment, name: for making the run.
        created_ms: Unix time; the run's start.
        fingerprint: of the training; None for other runs.
        run_id: MLflow's id; None until MLflow has answered.
        stands_in: whether a run that has to be made replaces one of another store that has ended.
    """

    key: str
    experiment: str
    name: str
    created_ms: int
    fingerprint: str | None = None
    run_id: str | None = None
    stands_in: bool = False


@dataclass(frozen=True)
class Waiting:
    """What MLflow has not taken yet."""

    records: int
    points: int
    files: int

    def __str__(self) -> str:
        return f"{self.points:,} points and {self.files:,} files"


def make_key() -> str:
    """A key that no other run has."""
    return uuid4().hex


def now_ms() -> int:
    """Unix time in milliseconds, MLflow's unit."""
    return int(time.time() * 1000)


def load_header(folder: Path) -> RunHeader | None:
    """The header in ``folder``; None where there is none, or it is damaged (with a warning)."""
    path = folder / LOG_FILE
    if not path.exists():
        return None
    try:
        return RunHeader(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        logger.warning("%s is damaged: logging to a new MLflow run", path)
        return None


class Spool:
    """The records of one run; safe to append to from several threads of one process."""

    def __init__(self, folder: Path, header: RunHeader) -> None:
        """``header`` is written where it differs from that in ``folder``.

        Raises:
            RegistryError: the folder cannot be written.
        """
        self.folder, self.header = folder, header
        self._spool = folder / LOG_FOLDER
        self._records = self._spool / RECORDS_FILE
        self._position = self._spool / POSITION_FILE
        self._lock = threading.Lock()
        self._unwritten: list[bytes] = []
        self._is_full = False
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            if not (folder / LOG_FILE).exists() or load_header(folder) != header:
                # A new run takes all that an older one had.
                self._position.unlink(missing_ok=True)
                self._save_header(header)
            self._cut_torn_line()
        except OSError as error:
            raise RegistryError(
                f"{folder}: what is logged cannot be written there ({error.strerror}): "
                "free disk space, or make the folder writable"
            ) from error

    def append(self, kind: str, **fields: Any) -> None:
        """Add a record; it is on the disk when this returns.

        Where the disk is full a warning says so, and the record is written together with the next
        one for which there is space.
        """
        line = json.dumps({"kind": kind, "time_ms": now_ms(), **fields}, ensure_ascii=False)
        with self._lock:
            self._unwritten.append(line.encode() + b"\n")
            self._write()

    def append_file(self, path: Path, artifact_folder: str) -> None:
        """Add a copy of a file; later changes of ``path`` do not matter.

        Raises:
            OSError: there is no such file, or the disk is full.
        """
        place = self._spool / "files" / uuid4().hex
        place.mkdir(parents=True)
        link_file(path, place / path.name)
        stored = f"{place.name}/{path.name}"
        self.append(FILE, path=stored, folder=artifact_folder, source=str(path))

    def flush(self) -> None:
        """Write the records that did not fit on a full disk."""
        with self._lock:
            self._write()

    @property
    def num_unwritten(self) -> int:
        """Records that wait in memory because the disk is full."""
        return len(self._unwritten)

    def find_file(self, record: Mapping[str, Any]) -> Path:
        """Where the file of a record lies."""
        return self._spool / "files" / str(record["path"])

    def read(self, position: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Records from a byte on, each with the position after it."""
        if not self._records.exists():
            return
        with self._records.open("rb") as handle:
            handle.seek(position)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                try:
                    yield json.loads(line), position
                except ValueError:
                    logger.warning("%s: skipping a damaged line", self._records)

    @property
    def position(self) -> int:
        """Bytes of the records that MLflow has taken."""
        try:
            return int(json.loads(self._position.read_text(encoding="utf-8"))["bytes"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            logger.warning("%s is damaged: sending everything again", self._position)
            return 0

    def acknowledge(self, position: int) -> None:
        """MLflow has taken the records up to this byte."""
        write_json(self._position, {"bytes": position})

    def bind(self, run_id: str) -> None:
        """Keep the run's id. If it has changed, all records are sent again."""
        if self.header.run_id == run_id:
            return
        if self.header.run_id is not None:
            self.acknowledge(0)
        self._save_header(replace(self.header, run_id=run_id))

    def count_waiting(self) -> Waiting:
        """What MLflow has not taken yet."""
        records = [record for record, _ in self.read(self.position)]
        points = sum(len(record["values"]) for record in records if record["kind"] == METRICS)
        files = sum(record["kind"] == FILE for record in records)
        return Waiting(len(records), points, files)

    def remove_if_finished(self) -> None:
        """Remove the spool once MLflow has all of a finished run and nothing else is beside it."""
        last = None
        for record, _ in self.read():
            if record["kind"] == STATUS:
                last = record["status"]
        others = {path.name for path in self.folder.iterdir()} - {LOG_FILE, LOG_FOLDER}
        if last == FINISHED and not others and not self.count_waiting().records:
            self.remove()

    def remove(self) -> None:
        """Remove the spool, sent or not; other files of the folder stay."""
        # The header first: without it the rest is not taken for a run.
        (self.folder / LOG_FILE).unlink(missing_ok=True)
        shutil.rmtree(self._spool)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def lock_sending(self) -> FileLock:
        """A lock that is held while sending; filelock.Timeout where another process sends."""
        return FileLock(self._spool / "sender.lock", blocking=False)

    def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            self._write_lines()
        except OSError as error:
            if not self._is_full:
                logger.warning(
                    "%s cannot be written (%s): what is logged waits in memory",
                    self._records,
                    error.strerror,
                )
            self._is_full = True
        else:
            self._unwritten, self._is_full = [], False

    def _write_lines(self) -> None:
        data = b"".join(self._unwritten)
        with self._records.open("ab", buffering=0) as handle:
            start = handle.tell()
            try:
                written = handle.write(data)
                os.fsync(handle.fileno())
            except OSError:
                # The next record must not continue half a line.
                os.ftruncate(handle.fileno(), start)
                raise
            if written < len(data):
                os.ftruncate(handle.fileno(), start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut_torn_line(self) -> None:
        """Remove what a power cut left of the last line."""
        if not self._records.exists():
            return
        data = self._records.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._records, whole)

    def _save_header(self, header: RunHeader) -> None:
        write_json(self.folder / LOG_FILE, asdict(header))
        self.header = header


def find_spools(work: Path) -> list[Path]:
    """Folders with records under ``data/.work``, the oldest first."""
    folders = [path.parent for path in work.glob(f"*/*/{LOG_FILE}")]
    return sorted(folders, key=lambda folder: (folder / LOG_FILE).stat().st_mtime)
