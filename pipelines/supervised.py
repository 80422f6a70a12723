"""Run a command whose whole process tree dies with the process that started this one.

``python pipelines/supervised.py COMMAND...`` with a pipe as standard input. The starter keeps the
other end of the pipe open: when it is killed, by SIGKILL too, the pipe ends and the tree goes down.
SIGTERM does the same on request. Without this, a killed flow leaves DVC and the trainer writing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 20.0
"""For a stage to end its MLflow run and remove temporary files, before SIGKILL."""

POLL_SECONDS = 0.05


def main(command: list[str]) -> int:
    """Exit status of ``command``, or 128 + SIGTERM when it had to be stopped."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C is the starter's to handle. A handler, because "ignore" would be inherited.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_watch_starter, args=(stop,), daemon=True).start()
    while child.poll() is None and not stop.wait(POLL_SECONDS):
        pass
    stopped = child.poll() is None
    stop_group(child.pid)
    code = child.wait()
    return 128 + signal.SIGTERM if stopped else code if code >= 0 else 128 - code


def stop_group(group: int) -> None:
    """End every process of a process group: SIGTERM, then SIGKILL after the grace period."""
    if not _signal_group(group, signal.SIGTERM):
        return
    deadline = time.monotonic() + GRACE_SECONDS
    while _is_alive(group) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal_group(group, signal.SIGKILL)


def _watch_starter(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def _signal_group(group: int, number: signal.Signals) -> bool:
    """False: no process of the group is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _is_alive(group: int) -> bool:
    """Whether a process of the group still runs. Dead ones that nobody has reaped do not count."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, psutil.AccessDenied):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
