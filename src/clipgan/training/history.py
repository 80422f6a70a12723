"""Losses over training: averaged over windows of images, kept from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Samples(NamedTuple):
    """A file of samples, and what was measured of them, by name."""

    path: Path
    values: dict[str, float]


class History:
    """One row of mean losses for every ``log_interval_images`` images."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, float]) -> None:
        """Take in the losses of one step. A lazy term counts only the steps that computed it."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def close_window(self, images_seen: int) -> dict[str, float]:
        """Means of the open window; they become a row at ``images_seen`` and a new window opens."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self.rows.append({"images_seen": images_seen, **means})
        self._sums, self._counts = {}, {}
        return means

    def note(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Add what was found out at ``images_seen`` by looking, to the row of that place."""
        if not self.rows or self.rows[-1]["images_seen"] != images_seen:
            self.rows.append({"images_seen": images_seen})
        self.rows[-1].update(values)

    @property
    def latest(self) -> dict[str, float]:
        """The newest row without its position; empty before the first window is closed."""
        row = dict(self.rows[-1]) if self.rows else {}
        row.pop("images_seen", None)
        return row

    def to_tree(self) -> dict[str, Any]:
        """JSON form; floats survive JSON bit for bit."""
        return {"rows": self.rows, "sums": self._sums, "counts": self._counts}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> History:
        """Undo of :meth:`to_tree`."""
        history = cls()
        history.rows = [dict(row) for row in tree["rows"]]
        history._sums, history._counts = dict(tree["sums"]), dict(tree["counts"])
        return history
