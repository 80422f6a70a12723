"""Results of a plan: a JSON file in the repository, and means with confidence intervals from it."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from clipgan.artifacts import write_json

FOLDER = Path("docs/experiments")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Record:
    """The result of one run."""

    study: str
    arm: str
    seed: int
    values: dict[str, float]
    history: list[dict[str, float]]
    cpu_seconds: float
    warm_up_cpu_seconds: float
    generator_parameters: int

    @property
    def place(self) -> tuple[str, str, int]:
        """Its place in the plan."""
        return self.study, self.arm, self.seed


@dataclass(frozen=True)
class Comparison:
    """Mean over the seeds, and the mean difference to the first arm with half its interval."""

    mean: float
    difference: float | None
    half_width: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        if self.difference is None or self.half_width is None:
            return False
        return abs(self.difference) > self.half_width


def load_records(plan_name: str) -> list[Record]:
    """The results recorded so far."""
    path = FOLDER / f"{plan_name}.json"
    if not path.exists():
        return []
    return [Record(**tree) for tree in json.loads(path.read_text(encoding="utf-8"))]


def save_records(plan_name: str, records: Sequence[Record]) -> None:
    """Replace the file, records in a fixed order."""
    ordered = sorted(records, key=lambda record: record.place)
    write_json(FOLDER / f"{plan_name}.json", [dataclasses.asdict(r) for r in ordered])


def compare_arms(values: Mapping[str, Mapping[int, float]], first: str) -> dict[str, Comparison]:
    """Compare every arm with ``first`` at equal seeds.

    The interval is Student's t for the mean of paired differences. Their variance is pooled over
    the arms of the study (one-way analysis of variance), since two seeds alone tell nothing of it.

    Args:
        values: arm -> seed -> value.
    """
    differences = {
        arm: [value - values[first][seed] for seed, value in own.items() if seed in values[first]]
        for arm, own in values.items()
        if arm != first
    }
    freedom = sum(max(len(d) - 1, 0) for d in differences.values())
    squares = sum(statistics.variance(d) * (len(d) - 1) for d in differences.values() if len(d) > 1)
    compared = {}
    for arm, own in values.items():
        mean, paired = statistics.fmean(own.values()), differences.get(arm)
        difference = statistics.fmean(paired) if paired else None
        half_width = None
        if paired and freedom:
            quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
            half_width = quantile * math.sqrt(squares / freedom / len(paired))
        compared[arm] = Comparison(mean, difference, half_width)
    return compared
