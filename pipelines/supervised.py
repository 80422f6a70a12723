"""Run a command whose whole process tree dies with the process that started this one.

``python pipelines/supervised.py COMMAND...`` with a pipe as standard input. The starter keeps the
other end of the pipe open: when it is killed, by SIGKILL too, the pipe ends and the tree goes down.
SIGTERM does the same on request. Without this, a killed flow leaves DVC and the trainer writing.

The command's output goes through here: a stage whose reader is gone must still be able to print
while it saves its state.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from clipgan.parent_process import end_with_parent

QUIET_SECONDS = 20.0
"""A process that was asked to end counts as stuck when it neither computes nor writes so long."""

LONGEST_SECONDS = 1800.0
"""Most time for a stage to end: a checkpoint of many gigabytes on a slow disk takes minutes."""

LEAST_CPU_SECONDS = 1.0
LEAST_WRITTEN_BYTES = 2**20
"""Less of both in ``QUIET_SECONDS`` counts as no work: threads that only wait cause a little."""

POLL_SECONDS = 0.05
RELAY_SECONDS = 5.0


def main(command: list[str]) -> int:
    """Exit status of ``command``, or 128 + SIGTERM when it had to be stopped."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C is the starter's to handle. A handler, because "ignore" would be inherited.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        # If this process is killed outright. No thread runs here yet.
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    assert child.stdout is not None
    relay = threading.Thread(target=_relay, args=(child.stdout.fileno(),), daemon=True)
    relay.start()
    threading.Thread(target=_watch_starter, args=(stop,), daemon=True).start()
    while child.poll() is None and not stop.wait(POLL_SECONDS):
        pass
    stopped = child.poll() is None
    stop_group(child.pid)
    code = child.wait()
    relay.join(RELAY_SECONDS)
    return 128 + signal.SIGTERM if stopped else code if code >= 0 else 128 - code


def stop_group(group: int) -> None:
    """End every process of a process group: SIGTERM, then SIGKILL once it makes no progress."""
    if not _signal_group(group, signal.SIGTERM):
        return
    deadline = time.monotonic() + LONGEST_SECONDS
    before = _measure_work(group)
    while not _has_ended(group, QUIET_SECONDS):
        after = _measure_work(group)
        if not _is_progress(before, after) or time.monotonic() > deadline:
            break
        before = after
    _signal_group(group, signal.SIGKILL)


@dataclass(frozen=True)
class _Work:
    """What a process has done so far; ``waits_for_disk`` while the kernel writes for it."""

    cpu_seconds: float
    written_bytes: int
    waits_for_disk: bool


def _measure_work(group: int) -> dict[int, _Work]:
    """Work of each process of a group, without zombies."""
    import psutil

    work = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, psutil.AccessDenied):
            if os.getpgid(process.pid) != group or process.status() == psutil.STATUS_ZOMBIE:
                continue
            times = process.cpu_times()
            work[process.pid] = _Work(
                times.user + times.system,
                # Only Linux reports the written bytes.
                process.io_counters().write_chars if sys.platform == "linux" else 0,
                process.status() == psutil.STATUS_DISK_SLEEP,
            )
    return work


def _is_progress(before: dict[int, _Work], after: dict[int, _Work]) -> bool:
    return before.keys() != after.keys() or any(
        now.waits_for_disk
        or now.cpu_seconds - before[pid].cpu_seconds >= LEAST_CPU_SECONDS
        or now.written_bytes - before[pid].written_bytes >= LEAST_WRITTEN_BYTES
        for pid, now in after.items()
    )


def _has_ended(group: int, seconds: float) -> bool:
    """Whether the group is gone, within ``seconds``."""
    deadline = time.monotonic() + seconds
    while _measure_work(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _relay(source: int) -> None:
    """Pass the command's output on; drop it once nobody reads it."""
    has_reader = True
    while data := os.read(source, 65536):
        while has_reader and data:
            try:
                data = data[os.write(sys.stdout.fileno(), data) :]
            except OSError:
                has_reader = False


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


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
