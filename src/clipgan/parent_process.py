"""End with the process that started this one. Linux only: elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here, not between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, even by SIGKILL.

    It stays in force after an exec, not in a forked child.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
