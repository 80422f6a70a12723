"""One pipeline at a time in a project folder.

DVC's own locks fail in the middle of a run, with a message about files. This one is taken first,
needs no server, and the kernel frees it when its holder dies, kill -9 included.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipgan.errors import PipelineBusyError


@dataclass(frozen=True)
class LockHolder:
    """Who runs a pipeline here, as they wrote it into the lock file."""

    pid: int
    command: str
    started: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid}, since {self.started})"


def lock_path(root: Path) -> Path:
    """The lock file of the project at ``root``, in the folder that DVC keeps out of git."""
    return root / ".dvc" / "tmp" / "pipeline.lock"


@contextlib.contextmanager
def workspace_lock(root: Path, command: str) -> Iterator[None]:
    """Hold the lock of the project at ``root`` for the block; ``command`` is shown to others.

    Raises:
        PipelineBusyError: another process holds it. One line names it and the fix.
    """
    path = lock_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never truncated before it is ours: the holder's name is in it.
    with path.open("a+", encoding="utf-8") as handle:
        if not _lock_soon(handle.fileno()):
            raise PipelineBusyError(
                f"another pipeline runs in {root}: {_read_holder(path) or 'unknown'}; "
                "wait for it, or stop it with Ctrl-C (or kill) and run again"
            )
        _write_holder(path, LockHolder(os.getpid(), command, time.strftime("%H:%M:%S")))
        try:
            yield
        finally:
            handle.truncate(0)


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


def _lock_soon(descriptor: int) -> bool:
    # A look by find_lock_holder holds the lock for microseconds: one retry tells it from a run.
    for delay_seconds in (0.1, 0.0):
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
