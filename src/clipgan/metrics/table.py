"""The table of an evaluation: what report.md, the page, the terminal and Prefect all show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clipgan.errors import EvaluationError
from clipgan.metrics.comparison import (
    NO_DIFFERENCE,
    REAL,
    ModelComparison,
    compare_models,
    compare_values,
)
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation
from clipgan.metrics.values import MetricValue

_READING_ORDER = (INITIAL, TRAINED)
"""Before and after; models of a comparison keep their order, and real images come last."""


@dataclass(frozen=True)
class Cell:
    """A value of one model; ``best`` where it is shown to be better than every other model's."""

    value: MetricValue | None
    best: bool

    @property
    def number(self) -> str:
        """``133.1``; empty where there is no value."""
        return "" if self.value is None else f"{self.value.value:.4g}"

    @property
    def interval(self) -> str:
        """``[131.2, 135]``; empty where there is none."""
        interval = None if self.value is None else self.value.interval
        return "" if interval is None else f"[{interval.low:.4g}, {interval.high:.4g}]"

    def __str__(self) -> str:
        return f"{self.number} {self.interval}".rstrip()


@dataclass(frozen=True)
class Row:
    """One metric, with a cell for each column and the verdict of the comparison with the baseline.

    ``verdict`` is empty where there is no baseline or more than one other model.
    """

    metric: str
    cells: tuple[Cell, ...]
    verdict: str

    @property
    def value(self) -> MetricValue:
        """The first model's value, which says what the values of all models share."""
        return next(cell.value for cell in self.cells if cell.value is not None)


@dataclass(frozen=True)
class Table:
    """Metrics as rows, models as columns, and the comparisons of each model with the baseline."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[ModelComparison, ...]

    @property
    def has_verdicts(self) -> bool:
        """Whether there is one model beside a baseline."""
        return any(row.verdict for row in self.rows)

    @property
    def interval(self) -> tuple[str, str] | None:
        """Confidence (``95%``) and method of the intervals; None where no value has one."""
        for row in self.rows:
            for cell in row.cells:
                if cell.value is not None and (interval := cell.value.interval) is not None:
                    return f"{interval.confidence:.0%}", interval.method
        return None


def build_table(evaluation: Evaluation) -> Table:
    """The table of an evaluation, with its paired comparisons."""
    values = evaluation.values
    order = dict.fromkeys((*_READING_ORDER, *(name for name in values if name != REAL), REAL))
    columns = tuple(name for name in order if values.get(name))
    comparisons = tuple(compare_models(values, evaluation.baseline))
    others = {comparison.model for comparison in comparisons}
    verdicts = {}
    if len(others) == 1:
        verdicts = {one.metric: one.verdict or "not comparable" for one in comparisons}
    names = dict.fromkeys(name for column in columns for name in values[column])
    rows = []
    for name in names:
        row = {column: values[column].get(name) for column in columns}
        best = _find_best(row)
        cells = tuple(Cell(value, column == best) for column, value in row.items())
        rows.append(Row(name, cells, verdicts.get(name, "")))
    return Table(columns, tuple(rows), comparisons)


def _find_best(row: Mapping[str, MetricValue | None]) -> str | None:
    """The model that paired comparisons show to be better than every other one; mostly None.

    Real images do not compete.
    """
    models = {model: v for model, v in row.items() if v is not None and model != REAL}
    if len(models) < 2:
        return None
    choose = min if next(iter(models.values())).better == "lower" else max
    best = choose(models, key=lambda model: models[model].value)
    others = [value for model, value in models.items() if model != best]
    return best if all(_differ(models[best], value) for value in others) else None


def _differ(a: MetricValue, b: MetricValue) -> bool:
    try:
        return compare_values(a, b).verdict != NO_DIFFERENCE
    except EvaluationError:
        return False
