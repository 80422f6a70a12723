"""Rows of measurements, on disk as they come, and the table that is made of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from clipgan.artifacts import atomic_path

ROWS, TABLE = "rows.jsonl", "table.md"


@dataclass(frozen=True)
class Row:
    """``part`` of the run, ``what`` was measured, its ``value`` with unit, and a ``note``."""

    part: str
    what: str
    value: str
    note: str = ""


class Results:
    """The rows of a folder; several processes may add to it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> None:
        """Write the row to the disk, print it, and make the table anew."""
        with (self.folder / ROWS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(row)) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        print(f"{row.part} | {row.what} | {row.value} | {row.note}", flush=True)
        self.write_table()

    def attempt(self, part: str, what: str, measure: Callable[[], tuple[str, str]]) -> None:
        """Add a row of what ``measure`` finds: value and note. A failure is a row that says why."""
        try:
            value, note = measure()
        except Exception as error:
            text = str(error).strip().splitlines() or [""]
            value, note = "failed", f"{type(error).__name__}: {text[0][:160]}"
        self.add(Row(part, what, value, note))

    def read(self) -> list[Row]:
        """All rows so far; a last line that was cut off is left out."""
        path = self.folder / ROWS
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [Row(**json.loads(line)) for line in lines]

    def write_table(self) -> None:
        """``table.md``: one row a measurement."""
        lines = ["| part | what | value | |", "|---|---|---|---|"]
        lines += [
            "| " + " | ".join(str(cell).replace("|", "/") for cell in asdict(row).values()) + " |"
            for row in self.read()
        ]
        with atomic_path(self.folder / TABLE) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Deadline:
    """Seconds that a part of the run may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())
