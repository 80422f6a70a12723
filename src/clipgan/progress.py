"""One progress bar for people, one flushed line now and then for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_INTERVAL_SECONDS = 10.0
"""Least time between two lines where the output is no terminal: Prefect stores each as a row."""


class ProgressBar:
    """Counts work done. Callers use ``advance`` and ``note``."""

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, *, shown: bool = True
    ) -> None:
        self.shown = shown
        self.title, self.total, self.unit = title, total, unit
        self.done = self._done_at_start = done
        self.text = ""
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    @property
    def rate(self) -> float:
        """Units a second since the start of this process."""
        return (self.done - self._done_at_start) / max(time.monotonic() - self._started, 1e-9)

    def note(self, text: str) -> None:
        """A short text beside the bar, such as the newest losses."""
        self.text = text

    def advance(self, count: int = 1) -> None:
        self.done += count
        if not self.shown:
            return
        if self._bar is not None:
            note = f"{self.rate:.1f} {self.unit}/s {self.text}"
            self._bar.update(self._bar.task_ids[0], completed=self.done, note=note)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL_SECONDS or self.done == self.total:
            self._last_line = time.monotonic()
            print(self.line(), flush=True)

    def line(self) -> str:
        """``train 1,024/4,000 images  8.1 images/s  6m07s left``."""
        remaining = "? left"
        if self.rate > 0:
            remaining = f"{format_duration((self.total - self.done) / self.rate)} left"
        return (
            f"{self.title} {self.done:,}/{self.total:,} {self.unit}  "
            f"{self.rate:.1f} {self.unit}/s  {remaining}  {self.text}"
        ).rstrip()


def format_duration(seconds: float) -> str:
    """``6m07s``; from an hour up ``6h52m``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


@contextmanager
def progress_bar(
    title: str, total: int, unit: str, done: int = 0, *, shown: bool = True
) -> Iterator[ProgressBar]:
    """A bar on a terminal; flushed lines every ten seconds everywhere else; or silence."""
    bar = ProgressBar(title, total, unit, done, shown=shown)
    if not shown or not sys.stdout.isatty():
        yield bar
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console()) as display:
        display.add_task(title, total=total, completed=done, note="")
        bar._bar = display
        yield bar
