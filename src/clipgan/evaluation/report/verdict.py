"""The verdict on a training in at most four lines: its faults, and whether more images help."""

from __future__ import annotations

import json
from pathlib import Path

from clipgan.errors import EvaluationError
from clipgan.evaluation.report.diagnosis import diagnose, is_too_early
from clipgan.evaluation.report.history import Point, list_points, load_history
from clipgan.metrics.evaluations import Evaluation
from clipgan.progress import format_duration

TRAINING_FILE = "training.json"
MOST_FINDINGS = 3
LAST_PART = 0.25
"""Of the images: what the end of a curve is judged by."""


def judge_training(training: Path, evaluation: Evaluation) -> tuple[str, ...]:
    """The verdict on the train stage's folder; no line where it holds no training.

    Raises:
        EvaluationError: its history, its report or an evaluation in its middle is damaged.
    """
    path = training / TRAINING_FILE
    if not path.exists():
        return ()
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        family, pace = str(report["family"]), float(report["images_per_second"])
        images_seen = int(report["images_seen"])
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); run the train stage again") from None
    rows = load_history(training / "history.json")
    findings = [str(found) for found in diagnose(rows, family)][:MOST_FINDINGS]
    if not findings:
        findings = [
            "too early to say whether the training is sound: its history is short"
            if is_too_early(rows)
            else "nothing wrong shows in the training's curves"
        ]
    points = list_points(training, evaluation)
    lines = [*findings, describe_progress(points, images_seen, pace)]
    return tuple(f"{line[0].upper()}{line[1:]}." for line in lines)


def describe_progress(
    points: dict[str, list[Point]], images_seen: int, images_per_second: float
) -> str:
    """Whether the distance to the real images still fell at the end, and what more images take.

    Args:
        points: metric -> its values over images seen. The first of ``fd_`` and ``fid`` is judged.
    """
    seconds = images_seen / max(images_per_second, 1e-9)
    more = (
        f"{images_seen:,} more images take about {format_duration(seconds)} at "
        f"{images_per_second:.3g} images/s (train.total_images)"
    )
    name = next((name for name in points if _is_distance(name)), None)
    curve = [] if name is None else points[name]
    start = (1 - LAST_PART) * images_seen
    before, last = ([p for p in curve if (p[0] > start) == late] for late in (False, True))
    # The start is another training's end: from it alone nobody knows what the last quarter did.
    if not last or not [point for point in before if point[0]]:
        return (
            "whether more images help was not measured (monitoring.evaluation_interval_images: a "
            f"quarter of train.total_images); {more}"
        )
    position, best = min(before, key=lambda point: point[1].value)
    found = min(value.value for _, value in last)
    limit = best.value if best.interval is None else best.interval.low
    if found < limit:
        return (
            f"still improving: {name} {best.value:.4g} to {found:.4g} in the last quarter; {more}"
        )
    rises = best.interval is not None and found > best.interval.high
    rise = "; it rises again, see docs/tuning.md" if rises else ""
    return (
        f"no longer improving since image {position:,}: {name} {best.value:.4g} there, "
        f"{found:.4g} at best in the last quarter{rise}"
    )


def _is_distance(name: str) -> bool:
    return name.rpartition("/")[2].startswith(("fd_", "fid"))
