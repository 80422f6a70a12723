"""What a person at a terminal sees of a flow: stages, their lines, where to look at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipgan.cli.models import Registered
from clipgan.stages.catalog import Workspace

PICTURES = ("samples.png", "before_after.png", "history.png", "report.md")


class RunConsole:
    """Prints a run; nothing of it goes through Prefect's log, which has its own copy."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._started = self._step_started = time.monotonic()

    def start_step(self, name: str) -> None:
        self._step_started = time.monotonic()
        self.console.print(f"[bold]{name}[/]")

    def show_line(self, line: str) -> None:
        self.console.print(f"  [dim]{escape(line)}[/]")

    def finish_step(self, name: str, word: str) -> None:
        """``word``: done or unchanged."""
        seconds = _duration(time.monotonic() - self._step_started)
        if word == "unchanged":
            self.console.print(f"[bold]{name}[/]  [dim]unchanged[/]")
        else:
            self.console.print(f"  [green]{word}[/] [dim]in {seconds}[/]")

    def finish_run(self, workspace: Workspace, registered: Registered | None) -> None:
        """The table of values, the model, the pictures, and what to do next."""
        metrics = load_metrics(workspace)
        if metrics:
            self.console.print(_metrics_table(metrics))
        rows = Table.grid(padding=(0, 2))
        if registered is not None:
            rows.add_row("model", escape(str(registered)))
        for name in PICTURES:
            path = workspace.evaluation / name
            if path.exists():
                rows.add_row(path.stem.replace("_", " "), escape(workspace.relative(path)))
        if registered is not None:
            rows.add_row(
                "next", escape(f'clipgan generate "a red apple" --model {registered.address}')
            )
        rows.add_row("pages", "clipgan ui mlflow, clipgan ui prefect")
        self.console.print(rows)
        self.console.print(f"[green]done[/] in {_duration(time.monotonic() - self._started)}")


_active: ContextVar[RunConsole | None] = ContextVar("clipgan_console", default=None)


@contextmanager
def run_console() -> Iterator[RunConsole]:
    """Show the flows of the block on the terminal; a worker's flows show nothing here."""
    console = RunConsole()
    token = _active.set(console)
    try:
        yield console
    finally:
        _active.reset(token)


def active_console() -> RunConsole | None:
    """The console of :func:`run_console`, None where a worker or test runs the flow."""
    return _active.get()


def load_metrics(workspace: Workspace) -> dict[str, dict[str, float]]:
    """``{"trained": {metric: number}, "initial": ..., "real": ...}``, empty where none is."""
    path = workspace.evaluation / "metrics.json"
    if not path.exists():
        return {}
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {section: values for section, values in tree.items() if isinstance(values, dict)}


def list_metric_rows(metrics: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """One row a metric: its name and its number in every section."""
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return [
        {"metric": name}
        | {
            section: f"{values[name]:.4g}" if name in values else ""
            for section, values in metrics.items()
        }
        for name in names
    ]


def _metrics_table(metrics: dict[str, dict[str, float]]) -> Table:
    # The order people read: before, after, what real images reach.
    titles = {"initial": "before", "trained": "after", "real": "real images"}
    ordered = {name: metrics[name] for name in titles if name in metrics}
    ordered |= {name: values for name, values in metrics.items() if name not in titles}
    table = Table(box=None, padding=(0, 2))
    table.add_column("metric")
    for section in ordered:
        table.add_column(titles.get(section, section), justify="right")
    for row in list_metric_rows(ordered):
        table.add_row(*row.values())
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
