"""The report of an evaluation as a set of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from clipgan.artifacts import atomic_path, write_bytes
from clipgan.evaluation.report.history import (
    list_points,
    load_history,
    save_history_csv,
    save_history_plot,
)
from clipgan.evaluation.report.page import build_page, format_report
from clipgan.evaluation.report.pictures import NearestPair, Pictures
from clipgan.evaluation.report.verdict import judge_training
from clipgan.grids import add_title, build_grid, save_grid
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation

PAGE_FILE = "report.html"
REPORT_FILE = "report.md"
GRID_CELL_PX = 128
"""Side to which small images are enlarged on the grids."""
BEFORE_AFTER = "left: before the training; right: after it, with the same words and latents"


def write_report(
    folder: Path, evaluation: Evaluation, pictures: Pictures, *, training: Path | None = None
) -> None:
    """Write report.md and report.html, and the grids and curves that there is something to draw
    for.

    Args:
        training: the train stage's folder, whose losses and evaluations become curves.

    Raises:
        EvaluationError: the history of ``training`` is damaged.
    """
    curves: bytes | None = None
    verdict: tuple[str, ...] = ()
    if training is not None:
        verdict = judge_training(training, evaluation)
        _save_history(folder, training, evaluation)
        curves = (folder / "history.png").read_bytes()
    if TRAINED in pictures.grids:
        _save_grids(folder, pictures)
    _save_nearest(folder, pictures.nearest.get(TRAINED, ()))
    write_bytes(folder / REPORT_FILE, format_report(evaluation, verdict).encode())
    write_bytes(folder / PAGE_FILE, build_page(evaluation, pictures, curves, verdict).encode())


def _save_grids(folder: Path, pictures: Pictures) -> None:
    """Draw samples.png, and before_after.png where there is an initial generator."""
    trained, prompts = pictures.grids[TRAINED], pictures.prompts
    columns, scale = trained.shape[1], max(1, GRID_CELL_PX // trained.shape[-1])
    path = folder / "samples.png"
    save_grid(path, trained.flatten(0, 1), columns, row_labels=prompts, scale=scale)
    if INITIAL not in pictures.grids:
        return
    half = max(1, columns // 2)
    both = torch.cat([pictures.grids[INITIAL][:, :half], trained[:, :half]], dim=1)
    grid = build_grid(both.flatten(0, 1), 2 * half, row_labels=prompts, scale=scale)
    with atomic_path(folder / "before_after.png") as temporary:
        add_title(grid, BEFORE_AFTER).save(temporary, format="PNG", optimize=True)


def _save_nearest(folder: Path, pairs: Sequence[NearestPair]) -> None:
    """Draw nearest.png, with each generated image at the left of its nearest training image."""
    if not pairs:
        return
    images = torch.stack([image for pair in pairs for image in (pair.generated, pair.training)])
    labels = [pair.condition for pair in pairs]
    scale = max(1, GRID_CELL_PX // images.shape[-1])
    save_grid(folder / "nearest.png", images, 2, row_labels=labels, scale=scale)


def _save_history(folder: Path, training: Path, evaluation: Evaluation) -> None:
    """Write history.csv and history.png: losses, and metrics before, during and after training."""
    rows = load_history(training / "history.json")
    points = {
        name: [(position, value.value) for position, value in found]
        for name, found in list_points(training, evaluation).items()
    }
    save_history_csv(folder / "history.csv", rows)
    save_history_plot(folder / "history.png", rows, points)
