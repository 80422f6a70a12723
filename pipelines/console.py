"""What a person at a terminal sees of a flow: stages, their lines, where to look at the end."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipgan.cli.models import Registered
from clipgan.config import load_params
from clipgan.workspace import Workspace

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
        """``word``: done, unchanged or not sent."""
        seconds = _duration(time.monotonic() - self._step_started)
        if word == "unchanged":
            self.console.print(f"[bold]{name}[/]  [dim]unchanged[/]")
        else:
            color = "green" if word == "done" else "yellow"
            self.console.print(f"  [{color}]{word}[/] [dim]in {seconds}[/]")

    def finish_run(self, workspace: Workspace, registered: Registered | None) -> None:
        """The table of values, what they say, the model, the pictures, and what to do next."""
        outcome = load_outcome(workspace)
        if outcome.metrics:
            self.console.print(_metrics_table(outcome))
        for sentence in outcome.summary:
            self.console.print(f"- {escape(sentence)}")
        rows = Table.grid(padding=(0, 2))
        if registered is not None:
            rows.add_row("model", escape(str(registered)))
        for name in PICTURES:
            path = workspace.evaluation / name
            if path.exists():
                rows.add_row(path.stem.replace("_", " "), escape(workspace.relative(path)))
        if registered is not None:
            rows.add_row("next", escape(_suggest_prompt(workspace, outcome, registered)))
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


@dataclass(frozen=True)
class Outcome:
    """What the last evaluation found, as evaluation.json has it.

    ``metrics``: ``{"before": {metric: number}, "after": ..., "real": ...}``, of the
    generator the training started from, the trained one, and real images in its place.
    """

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    summary: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


def load_outcome(workspace: Workspace) -> Outcome:
    """The last evaluation; empty where there is none. Reads JSON alone: no torch is imported."""
    path = workspace.evaluation / "evaluation.json"
    if not path.exists():
        return Outcome()
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # The order people read.
    titles = {"initial": "before", "trained": "after", "real": "real"}
    metrics = {
        title: {name: entry["value"] for name, entry in tree[section].items()}
        for section, title in titles.items()
        if tree.get(section)
    }
    return Outcome(metrics, *(tree[key] for key in ("verdicts", "summary", "prompts")))


def list_metric_rows(outcome: Outcome) -> list[dict[str, str]]:
    """One row a metric: its name, its numbers, and what the training changed."""
    names = dict.fromkeys(name for values in outcome.metrics.values() for name in values)
    rows = []
    for name in names:
        row = {"metric": name}
        for section, values in outcome.metrics.items():
            row[section] = f"{values[name]:.4g}" if name in values else ""
        if outcome.verdicts:
            row["difference"] = outcome.verdicts.get(name, "").replace("no difference", "none")
        rows.append(row)
    return rows


def _metrics_table(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 1))
    rows = list_metric_rows(outcome)
    for title in rows[0]:
        table.add_column(title, justify="right" if title in outcome.metrics else "left")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table


def _suggest_prompt(workspace: Workspace, outcome: Outcome, registered: Registered) -> str:
    """A command for a picture of the user's own data by the model of this run."""
    monitoring = load_params(workspace.params_file).monitoring
    prompt = (*outcome.prompts, *monitoring.sample_prompts)[0]
    command = f"clipgan generate {shlex.quote(prompt)}"
    if registered.is_champion:
        return command
    return f"{command} --model models:/{registered.model_name}/{registered.version}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
