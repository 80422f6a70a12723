from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipgan.errors import EvaluationError
from clipgan.evaluation.report.history import load_history, save_history_csv, save_history_plot

ROWS = [
    {"images_seen": 16, "generator_loss": 1.5},
    {"images_seen": 32, "generator_loss": 1.0, "r1_penalty": 0.25},
]


def test_table_has_images_seen_first_and_gaps_empty(tmp_path: Path) -> None:
    save_history_csv(tmp_path / "history.csv", ROWS)
    assert (tmp_path / "history.csv").read_text() == (
        "images_seen,generator_loss,r1_penalty\n16,1.5,\n32,1.0,0.25\n"
    )


def test_plot_has_a_panel_for_each_loss_and_metric(tmp_path: Path) -> None:
    heights = []
    for number in (1, 4):
        metrics = {f"metric {n}": [(0, 2.0), (32, 1.0)] for n in range(number)}
        save_history_plot(tmp_path / "history.png", ROWS, metrics)
        with Image.open(tmp_path / "history.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_short_histories_are_drawn_too(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    save_history_plot(tmp_path / "history.png", rows, {})
    with Image.open(tmp_path / "history.png") as picture:
        picture.load()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such file"),
        ("[{", "damaged"),
        ('[{"loss": 1}]', "no images_seen"),
        ("3", "images_seen"),
    ],
)
def test_damaged_history_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "history.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EvaluationError, match=reason):
        load_history(path)
