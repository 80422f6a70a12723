"""What the loop finds out whenever it draws samples: into the history, and into words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.test_loop import RandomWalk, RecordingLogger, run_loop


def test_what_samples_show_joins_the_history_and_is_looked_at(tmp_path: Path) -> None:
    logger, heard = RecordingLogger(), list[int]()
    report = run_loop(
        tmp_path,
        RandomWalk(),
        logger,
        diagnose=lambda rows: heard.append(len(rows)),
        measured=True,
    )
    looked = [(row["images_seen"], row["looked"]) for row in report.history if "looked" in row]
    assert looked == [(seen, float(seen)) for seen in (0, 16, 32, 40)]
    assert [row["images_seen"] for row in report.history] == [0, 8, 16, 24, 32, 40]
    assert heard == [1, 3, 5, 6]
    assert [seen for seen, found in logger.buffered if "train/looked" in found] == [40]
    assert [seen for seen, found in logger.flushed if "train/looked" in found] == [0, 16, 32]


@pytest.mark.parametrize("signal_at", [8, 12, 20])
def test_what_samples_show_survives_a_stop(tmp_path: Path, signal_at: int) -> None:
    """At a grid (12 + 4), at a checkpoint before one, and between."""
    whole = run_loop(tmp_path / "whole", RandomWalk(), measured=True)
    stopped = RandomWalk()
    stopped.signal_at = signal_at
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", stopped, measured=True)
    assert run_loop(tmp_path / "cut", RandomWalk(), measured=True).history == whole.history


def test_a_diagnosis_that_fails_ends_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(rows: Any) -> None:
        raise ValueError("no words")

    assert run_loop(tmp_path, RandomWalk(), diagnose=fail).images_seen == 40
    assert "no samples after 16 images (ValueError: no words)" in caplog.text
