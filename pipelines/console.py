"""What a flow prints on a terminal: its stages, their lines, and the results at the end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipgan.cli.models import Registered
from clipgan.config import load_params
from clipgan.evaluation.report.summary import summarise
from clipgan.evaluation.report.verdict import judge_training
from clipgan.metrics.evaluations import (
    EVALUATION_FILE,
    INITIAL,
    TRAINED,
    Evaluation,
    load_evaluation,
)
from clipgan.metrics.table import Table as MetricTable
from clipgan.metrics.table import build_table
from clipgan.workspace import Workspace

PICTURES = ("samples.png", "before_after.png", "history.png", "report.md")
TITLES = {INITIAL: "before", TRAINED: "after"}


class RunConsole:
    """Prints a run on the terminal, independently of Prefect's log."""

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
        """Print the values, a summary, the verdict on the training, the model, the pictures and the
        next command."""
        evaluation = load_outcome(workspace)
        table = build_table(evaluation)
        if table.rows:
            self.console.print(_draw_table(table))
        for sentence in summarise(evaluation.values, table.comparisons):
            self.console.print(f"- {escape(sentence)}")
        for sentence in judge_training(workspace.training, evaluation):
            self.console.print(f"- {escape(sentence)}")
        rows = Table.grid(padding=(0, 2))
        if registered is not None:
            rows.add_row("model", escape(str(registered)))
        for name in PICTURES:
            path = workspace.report / name
            if path.exists():
                rows.add_row(path.stem.replace("_", " "), escape(workspace.relative(path)))
        if registered is not None:
            rows.add_row("next", escape(_suggest_prompt(workspace, evaluation, registered)))
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


def load_outcome(workspace: Workspace) -> Evaluation:
    """The last evaluation; empty where there is none. No torch is imported."""
    if not (workspace.evaluation / EVALUATION_FILE).exists():
        return Evaluation({})
    return load_evaluation(workspace.evaluation)


def list_metric_rows(table: MetricTable) -> list[dict[str, str]]:
    """One row a metric: its name, its numbers, and what the training changed."""
    titles = [TITLES.get(column, column) for column in table.columns]
    rows = []
    for row in table.rows:
        cells = {"metric": row.metric}
        cells |= {title: cell.number for title, cell in zip(titles, row.cells, strict=True)}
        if table.has_verdicts:
            cells["difference"] = row.verdict.replace("no difference", "none")
        rows.append(cells)
    return rows


def _draw_table(table: MetricTable) -> Table:
    drawn = Table(box=None, padding=(0, 1))
    rows = list_metric_rows(table)
    for title in rows[0]:
        drawn.add_column(title, justify="left" if title in ("metric", "difference") else "right")
    for row in rows:
        drawn.add_row(*map(escape, row.values()))
    return drawn


def _suggest_prompt(workspace: Workspace, evaluation: Evaluation, registered: Registered) -> str:
    """A command that draws a picture for one of the user's own captions with this run's model."""
    monitoring = load_params(workspace.params_file).monitoring
    prompt = (*evaluation.prompts, *monitoring.sample_prompts)[0]
    command = f"clipgan generate {shlex.quote(prompt)}"
    if registered.is_champion:
        return command
    return f"{command} --model models:/{registered.model_name}/{registered.version}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
