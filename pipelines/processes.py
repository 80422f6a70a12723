"""Runs the commands of a pipeline: streams their lines, and ends their whole process tree."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clipgan.cli.workspace_lock import held_descriptors
from pipelines.supervised import LONGEST_SECONDS

SUPERVISOR = Path(__file__).with_name("supervised.py")


def stream(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float | None = None,
) -> int:
    """Run ``command`` in ``folder`` and hand each line of its output to ``on_line``.

    Returns its exit status (128 + signal where a signal ended it). On any exception here (Prefect's
    cancellation, SIGTERM, Ctrl-C) the command and all that it started are ended first. If this
    process is killed outright, the supervisor ends them.

    Raises:
        TimeoutError: it took longer than ``timeout_seconds``; all its processes were ended.
    """
    expired = threading.Event()
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISOR), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        # Ctrl-C in a terminal goes to the whole foreground group: only this process is in it.
        start_new_session=True,
        # If this process is killed, the lock is free when the command has ended, not before.
        pass_fds=held_descriptors(),
    )
    assert process.stdout is not None

    def expire() -> None:
        expired.set()
        process.send_signal(signal.SIGTERM)

    # Prefect's own timeout interrupts a blocking read only where SIGALRM is free.
    timer = threading.Timer(timeout_seconds or 0.0, expire)
    if timeout_seconds is not None:
        timer.start()
    try:
        for line in process.stdout:
            on_line(line.rstrip())
        code = process.wait()
        if expired.is_set():
            raise TimeoutError(f"took longer than {timeout_seconds:g} seconds")
        return code
    finally:
        timer.cancel()
        if process.poll() is None:
            _stop(process)
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()


def _stop(supervisor: subprocess.Popen[str]) -> None:
    supervisor.send_signal(signal.SIGTERM)
    try:
        # Reads what is still printed: a full pipe would block the command.
        supervisor.communicate(timeout=LONGEST_SECONDS + 10)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
