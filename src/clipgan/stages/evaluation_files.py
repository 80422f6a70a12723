"""The pictures and tables of an evaluation folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from clipgan.artifacts import replace_folder
from clipgan.config import EvaluateConfig
from clipgan.evaluation.findings import NearestPair
from clipgan.evaluation.history import load_history, save_history_csv, save_history_plot
from clipgan.evaluation.protocol import MetricValue, find_difference
from clipgan.evaluation.report import INITIAL, TRAINED, load_evaluation
from clipgan.grids import save_grid

SHEET_CELL_PX = 128
"""Small images are enlarged to about this side on the sheets."""
NEAREST_FILE = "nearest.png"
EVALUATIONS_FOLDER = "evaluations"
"""Of a training that was evaluated in its middle: a folder for each time."""


def save_sheets(
    folder: Path, config: EvaluateConfig, prompts: Sequence[str], sheets: Mapping[str, Tensor]
) -> None:
    """samples.png, and before_after.png where there is an initial generator."""
    columns, trained = config.grid_samples, sheets[TRAINED]
    scale = max(1, SHEET_CELL_PX // trained.shape[-1])
    save_grid(folder / "samples.png", trained, columns, row_labels=prompts, scale=scale)
    if INITIAL not in sheets:
        return
    rows, labels = [], []
    for row, prompt in enumerate(prompts):
        for name, label in ((INITIAL, "before"), (TRAINED, "after")):
            rows.append(sheets[name][row * columns : (row + 1) * columns])
            labels.append(f"{prompt} ({label})")
    save_grid(folder / "before_after.png", torch.cat(rows), columns, row_labels=labels, scale=scale)


def save_nearest(folder: Path, pairs: Sequence[NearestPair]) -> None:
    """nearest.png: each generated image at the left of its nearest training image."""
    if not pairs:
        return
    images = torch.stack([image for pair in pairs for image in (pair.generated, pair.training)])
    labels = [pair.condition for pair in pairs]
    scale = max(1, SHEET_CELL_PX // images.shape[-1])
    save_grid(folder / NEAREST_FILE, images, 2, row_labels=labels, scale=scale)


def save_history(
    folder: Path,
    training: Path,
    values: Mapping[str, Mapping[str, MetricValue]],
    images_seen: int,
) -> None:
    """history.csv and history.png: losses over training, metrics before, during and after it."""
    rows = load_history(training / "history.json")
    found = [(0, values.get(INITIAL, {}))]
    found += _load_evaluations(training / EVALUATIONS_FOLDER, images_seen)
    found.append((images_seen, values.get(TRAINED, {})))
    points: dict[str, list[tuple[int, float]]] = {}
    for position, measured in found:
        for name, value in measured.items():
            if name in values[TRAINED] and find_difference(
                value.protocol, values[TRAINED][name].protocol
            ):
                continue  # another protocol: no point of this curve
            points.setdefault(name, []).append((position, value.value))
    save_history_csv(folder / "history.csv", rows)
    save_history_plot(folder / "history.png", rows, points)


def _load_evaluations(
    folder: Path, images_seen: int
) -> list[tuple[int, Mapping[str, MetricValue]]]:
    """Images seen and values of the evaluations during the training, but for its very end."""
    places = {
        int(path.name.removeprefix("images-")): path for path in sorted(folder.glob("images-*"))
    }
    return [
        (position, load_evaluation(path).values[TRAINED])
        for position, path in places.items()
        if position < images_seen
    ]


@contextmanager
def built_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its place when everything is written."""
    building = output.with_name(f".{output.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        yield building
        replace_folder(building, output)
    finally:
        shutil.rmtree(building, ignore_errors=True)
