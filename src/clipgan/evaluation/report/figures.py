"""Figures of the report: precision against recall, and the style that all figures share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from clipgan.metrics.values import MetricValue

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
