"""What Python does while a block runs, from its audit events."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HARMLESS = {"builtins.id", "mmap.__new__"}
# Python imports the codecs of old text instructions when it first meets one.
for _codec in ("ascii", "utf-8", "raw_unicode_escape"):
    codecs.lookup(_codec)

_recorders: list[set[str]] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if not _recorders or event in HARMLESS:
        return
    if event == "open" and arguments[1] in ("r", "rb"):
        return
    for recorder in _recorders:
        recorder.add(event)


sys.addaudithook(_record)


@contextmanager
def recorded_events() -> Iterator[set[str]]:
    """Names of the events that reading and computing do not cause: imports, calls, writes, ..."""
    events: set[str] = set()
    _recorders.append(events)
    try:
        yield events
    finally:
        _recorders.remove(events)
