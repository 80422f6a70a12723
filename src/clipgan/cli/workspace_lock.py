"""One writer at a time in a project folder: a pipeline, or a command such as ``clipgan promote``.

DVC's own locks fail in the middle of a run, with a message about files. This one is taken first,
needs no server, and the kernel frees it when its last holder dies, kill -9 included. Holders are
the process that took it and the supervisors of its stages, which inherit the open file: while a
stage of a killed run still saves its state, the lock is held. filelock does not serve here: it
offers no descriptor to inherit and does not tell who holds a lock.

A process that a holder starts (``dvc repro``, ``clipgan stage``) finds the holder's process id in
the environment and works under its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipgan.errors import PipelineBusyError

OWNER_VARIABLE = "CLIPGAN_LOCK_OWNER"
POLL_SECONDS = 0.1

_held: list[int] = []


@dataclass(frozen=True)
class LockHolder:
    """Who runs a pipeline here, as they wrote it into the lock file."""

    pid: int
    command: str
    started: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid}, since {self.started})"

    def is_running(self) -> bool:
        """False where it was killed while a stage that it started is still ending."""
        import psutil

        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def lock_path(root: Path) -> Path:
    """The lock file of the project at ``root``, in the folder that DVC keeps out of git."""
    return root / ".dvc" / "tmp" / "pipeline.lock"


@contextlib.contextmanager
def workspace_lock(root: Path, command: str) -> Iterator[None]:
    """Hold the lock of the project at ``root`` for the block; ``command`` is shown to others.

    If the process that started this one holds the lock, the block runs under it. If the holder was
    killed and its stage is still ending, this waits for the stage and says so.

    Raises:
        PipelineBusyError: another process holds it; the message names it and the fix.
    """
    path = lock_path(root)
    if _is_lent(root):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not truncated before the lock is taken, because the holder's name is in the file.
    with path.open("a+", encoding="utf-8") as handle:
        _acquire(handle.fileno(), root)
        _write_holder(path, LockHolder(os.getpid(), command, time.strftime("%H:%M:%S")))
        os.environ[OWNER_VARIABLE] = str(os.getpid())
        _held.append(handle.fileno())
        try:
            yield
        finally:
            _held.remove(handle.fileno())
            del os.environ[OWNER_VARIABLE]
            handle.truncate(0)


def held_descriptors() -> tuple[int, ...]:
    """Open files of the locks that this process holds, for a supervisor to inherit."""
    return tuple(_held)


def find_lock_holder(root: Path) -> LockHolder | None:
    """The running pipeline of the project at ``root``, or None."""
    path = lock_path(root)
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(path) or LockHolder(0, "a pipeline", "just now")
    return None


def _is_lent(root: Path) -> bool:
    owner = os.environ.get(OWNER_VARIABLE)
    if owner is None or owner == str(os.getpid()):
        return False
    holder = find_lock_holder(root)
    return holder is not None and str(holder.pid) == owner and holder.is_running()


def _acquire(descriptor: int, root: Path) -> None:
    path, said = lock_path(root), False
    while not _lock_soon(descriptor):
        holder = _read_holder(path)
        if holder is None or holder.is_running():
            raise PipelineBusyError(
                f"another pipeline runs in {root}: {holder or 'unknown'}; "
                "wait for it, or stop it with Ctrl-C (or kill) and run again"
            )
        if not said:
            print(
                f"{holder} was killed; waiting for its stage to save its state and end",
                file=sys.stderr,
                flush=True,
            )
            said = True


def _lock_soon(descriptor: int) -> bool:
    # find_lock_holder holds the lock for microseconds: a second try tells it from a run.
    for delay_seconds in (POLL_SECONDS, 0.0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(delay_seconds)
        else:
            return True
    return False


def _write_holder(path: Path, holder: LockHolder) -> None:
    # In place: a renamed file would carry another inode, and with it another lock.
    path.write_text(json.dumps(vars(holder)), encoding="utf-8")


def _read_holder(path: Path) -> LockHolder | None:
    text = path.read_text(encoding="utf-8")
    # Empty for the instant between taking the lock and writing the name.
    return LockHolder(**json.loads(text)) if text else None
