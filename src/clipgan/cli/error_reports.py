"""What a person sees when something goes wrong: one line, an exit code, a traceback on request."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clipgan.artifacts import format_size
from clipgan.errors import ClipganError, StageFailedError

_MEMORY_WORDS = re.compile(
    r"failed to map segment|cannot allocate memory|can't allocate memory|not enough memory|"
    r"bad_alloc|can't start new thread",
    re.IGNORECASE,
)
DEBUG_VARIABLE = "CLIPGAN_DEBUG"
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


def debug_is_on() -> bool:
    """Whether ``--debug`` was given here or in the process that started this one."""
    return bool(os.environ.get(DEBUG_VARIABLE))


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that MLflow runs are ended and temporary files removed.

    Further SIGTERMs are ignored: they would interrupt that.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, lambda *_: None)
        raise SystemExit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, leave)


def accept_any_encoding() -> None:
    """Let stdout print characters that its encoding lacks as ``\\x..``, as stderr does anyway.

    Otherwise printing a path with such characters to an ASCII terminal or log would be an error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def reported_errors() -> Iterator[None]:
    """End the process with one line on stderr for every exception of the block.

    A :class:`ClipganError` exits with its own code, Ctrl-C with 130, anything else with 1.
    """
    try:
        yield
    except ClipganError as error:
        _leave(error, f"error: {error}", error.exit_code)
    except KeyboardInterrupt as error:
        message = "interrupted; run the same command again to resume"
        _leave(error, message, EXIT_INTERRUPTED)
    except Exception as error:
        # The boundary of the program: an unforeseen exception ends in one line, too.
        if type(error).__module__.startswith("typer"):
            raise  # usage errors and exits are Typer's to print
        hint = "" if debug_is_on() else " (--debug shows where)"
        memory = "out of memory" + describe_memory_limit() if _is_memory_error(error) else ""
        words = memory or f"{type(error).__name__}: {_one_line(error)}"
        _leave(error, f"error: {words}{hint}", 1)


def describe_memory_limit() -> str:
    """What to do about too little memory, as the end of a sentence."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ": end other programs, or lower batch_size"
    return (
        f": this shell allows a process {format_size(limit)} of address space (`ulimit -v`); "
        "raise the limit, such as with `ulimit -v unlimited`, and run again"
    )


def _is_memory_error(error: Exception) -> bool:
    """Also recognised by the texts of the dynamic loader, PyTorch and safetensors."""
    return isinstance(error, MemoryError) or bool(_MEMORY_WORDS.search(str(error)))


def _leave(error: BaseException, message: str, exit_code: int) -> None:
    if debug_is_on():
        if isinstance(error, StageFailedError) and error.traceback:
            # The traceback of the stage's process, not that of the flow.
            print(error.traceback, file=sys.stderr)
        else:
            traceback.print_exception(error)
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(exit_code) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
