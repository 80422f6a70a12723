"""Figures of the report: precision against recall, and the style that all figures share."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipgan.metrics.values import MetricValue

COLUMNS = 3
COLORS = ("#1f5fa8", "#b5541c", "#3b7d3b", "#7a4a9e", "#8a6d1d", "#a8325e")

Points = Mapping[str, tuple[MetricValue, MetricValue]]
"""Model -> its precision and recall."""


def find_precision_recall(values: Mapping[str, Mapping[str, MetricValue]]) -> dict[str, Points]:
    """Name of a precision -> the points of all models that have it and the recall of that name."""
    points: dict[str, dict[str, tuple[MetricValue, MetricValue]]] = {}
    for model, metrics in values.items():
        for name, precision in metrics.items():
            if not name.rpartition("/")[2].startswith("precision"):
                continue
            recall = metrics.get(name.replace("precision", "recall"))
            if recall is not None:
                points.setdefault(name, {})[model] = (precision, recall)
    return dict(points)


def draw_precision_recall(points: Points, title: str) -> bytes:
    """Draw precision over recall with both intervals, as PNG."""
    # The object interface needs no display and no backend, and keeps no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axis: Any = figure.subplots()
    for number, (model, (precision, recall)) in enumerate(points.items()):
        axis.errorbar(
            recall.value,
            precision.value,
            xerr=_reach(recall),
            yerr=_reach(precision),
            fmt="o",
            color=COLORS[number % len(COLORS)],
            capsize=3,
            label=model,
        )
    axis.set(xlabel="recall (variety)", ylabel="precision (quality)", xlim=(-0.03, 1.03))
    axis.set_ylim(-0.03, 1.03)
    style_axis(axis, title)
    axis.legend(fontsize=8, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, MetricValue]]],
    references: Mapping[str, MetricValue],
    label: str,
) -> bytes:
    """Draw a panel for each metric, its values over a number with their intervals, as PNG.

    Args:
        curves: metric -> (number, value) points.
        references: metric -> the value that a dashed line marks.
        label: of the numbers.
    """
    from matplotlib.figure import Figure

    rows = max(1, math.ceil(len(curves) / COLUMNS))
    figure = Figure(figsize=(4.0 * COLUMNS, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axis, (metric, points) in zip(axes, curves.items(), strict=False):
        numbers, values = [x for x, _ in points], [value.value for _, value in points]
        axis.plot(numbers, values, color=COLORS[0])
        for number, value in points:
            reach = _reach(value)
            axis.errorbar(number, value.value, yerr=reach, fmt="o", color=COLORS[0], capsize=3)
        axis.axhline(references[metric].value, color=COLORS[1], linestyle="--")
        style_axis(axis, metric.replace("_", " "))
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    figure.supxlabel(label, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def style_axis(axis: Any, title: str) -> None:
    """Set the title, the grid and the frame that all figures share."""
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _reach(value: MetricValue) -> list[list[float]]:
    if value.interval is None:
        return [[0.0], [0.0]]
    return [[value.value - value.interval.low], [value.interval.high - value.value]]
