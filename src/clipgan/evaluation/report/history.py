"""Losses over training, as a figure and as a table for ``dvc plots``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipgan.artifacts import atomic_path, write_bytes
from clipgan.errors import EvaluationError
from clipgan.evaluation.report.figures import COLUMNS, style_axis
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation, load_evaluation
from clipgan.metrics.values import MetricValue, find_difference

IMAGES_SEEN = "images_seen"
EVALUATIONS_FOLDER = "evaluations"
"""Of a training that was evaluated in its middle: a folder for each time."""
LOSS_COLOR = "#1f5fa8"
METRIC_COLOR = "#b5541c"

HistoryRow = Mapping[str, float]
Point = tuple[int, MetricValue]
"""Images seen, and a value measured there."""


def load_history(path: Path) -> list[dict[str, float]]:
    """Read the rows ``{"images_seen": ..., loss: ...}`` of a training's history.json.

    Raises:
        EvaluationError: the file is damaged, or a row has no ``images_seen``.
    """
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; run the train stage") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); run the train stage again") from None
    if not isinstance(tree, list) or any(IMAGES_SEEN not in row for row in tree):
        raise EvaluationError(f"{path}: a row has no {IMAGES_SEEN}; run the train stage again")
    return [dict(row) for row in tree]


def list_points(training: Path, evaluation: Evaluation) -> dict[str, list[Point]]:
    """Metric -> its values before, during and after a training, all of one protocol.

    Raises:
        EvaluationError: an evaluation in the middle of the training is damaged.
    """
    values, images_seen = evaluation.values, evaluation.images_seen or 0
    found: list[tuple[int, Mapping[str, MetricValue]]] = [(0, values.get(INITIAL, {}))]
    for path in sorted((training / EVALUATIONS_FOLDER).glob("images-*")):
        position = int(path.name.removeprefix("images-"))
        if position < images_seen:
            found.append((position, load_evaluation(path).values[TRAINED]))
    found.append((images_seen, values.get(TRAINED, {})))
    points: dict[str, list[Point]] = {}
    for position, measured in found:
        for name, value in measured.items():
            if name in values[TRAINED] and find_difference(
                value.protocol, values[TRAINED][name].protocol
            ):
                continue  # another protocol: no point of this curve
            points.setdefault(name, []).append((position, value))
    return points


def save_history_csv(path: Path, rows: Sequence[HistoryRow]) -> None:
    """Write a line for each row, ``images_seen`` first; a loss that a row lacks is empty."""
    names = [IMAGES_SEEN, *_loss_names(rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([dict(row) for row in rows])
    write_bytes(path, text.getvalue().encode())


def save_history_plot(
    path: Path,
    rows: Sequence[HistoryRow],
    metrics: Mapping[str, Sequence[tuple[int, float]]],
) -> None:
    """Draw a panel for each loss and then for each metric, all over images seen, as PNG.

    Args:
        rows: of :func:`load_history`.
        metrics: name -> (images_seen, value) points.
    """
    # The object interface needs no display and no backend, and keeps no global state.
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[float, float]]] = {
        name: [(row[IMAGES_SEEN], row[name]) for row in rows if name in row]
        for name in _loss_names(rows)
    }
    series |= {name: list(points) for name, points in metrics.items()}
    num_rows = max(1, math.ceil(len(series) / COLUMNS))
    figure = Figure(figsize=(4.0 * COLUMNS, 2.4 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, COLUMNS, squeeze=False).flatten()
    last = max((x for points in series.values() for x, _ in points), default=1)
    for axis, (name, points) in zip(axes, series.items(), strict=False):
        _draw_panel(axis, name, points, METRIC_COLOR if name in metrics else LOSS_COLOR)
        # All panels have one scale, so that the same moment stands at the same place.
        axis.set_xlim(-0.03 * last, 1.03 * last)
    for axis in axes[len(series) :]:
        axis.set_axis_off()
    if not series:
        axes[0].text(0, 0.5, "no history: the training ended before its first log interval")
    figure.supxlabel("images seen", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_panel(axis: Any, name: str, points: Sequence[tuple[float, float]], color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(points) <= 24 else ""
    axis.plot(*zip(*points, strict=True), color=color, linewidth=1.5, marker=marker, ms=3.5)
    style_axis(axis, name.replace("_", " "))
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.margins(y=0.12)


def _loss_names(rows: Sequence[HistoryRow]) -> list[str]:
    return [name for name in dict.fromkeys(n for row in rows for n in row) if name != IMAGES_SEEN]
