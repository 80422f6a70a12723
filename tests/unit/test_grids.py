"""Sample grids: where pixels land, and labels that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.grids import GAP_PX, build_grid, save_grid


def make_images(count: int, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 200, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_every_pixel_is_kept_in_row_order() -> None:
    images = make_images(5)
    grid = np.asarray(build_grid(images, columns=3))
    assert grid.shape == (2 * 8 + 3 * GAP_PX, 3 * 8 + 4 * GAP_PX, 3)
    for index in range(5):
        row, column = divmod(index, 3)
        top, left = GAP_PX + row * (8 + GAP_PX), GAP_PX + column * (8 + GAP_PX)
        cell = grid[top : top + 8, left : left + 8]
        assert np.array_equal(cell, images[index].permute(1, 2, 0).numpy())
    # The missing sixth image and all gaps stay white: only the five cells hold colour.
    assert (grid < 255).any(axis=2).sum() == 5 * 64


def test_scale_repeats_pixels() -> None:
    images = make_images(1)
    grid = np.asarray(build_grid(images, columns=1, scale=3))
    cell = grid[GAP_PX:-GAP_PX, GAP_PX:-GAP_PX]
    assert np.array_equal(cell[::3, ::3], images[0].permute(1, 2, 0).numpy())
    assert np.array_equal(cell[0::3], cell[2::3])


def test_labels_are_drawn_beside_their_rows_and_leave_images_alone() -> None:
    images = make_images(4, side=64)
    plain = np.asarray(build_grid(images, columns=2))
    labelled = np.asarray(build_grid(images, columns=2, row_labels=["a red apple", ""]))
    label_width = labelled.shape[1] - plain.shape[1]
    assert label_width > 20
    assert np.array_equal(labelled[:, label_width + GAP_PX :], plain[:, GAP_PX:])
    ink = (labelled[:, :label_width] < 128).any(axis=(1, 2))
    assert ink[: GAP_PX + 64].any()
    assert not ink[GAP_PX + 64 :].any()


@pytest.mark.parametrize(
    "label",
    ["word " * 60, "x" * 500, "Ünïcödé ёмоджи", "   "],
    ids=["long", "word", "text", "blank"],
)
@pytest.mark.parametrize("side", [8, 64])
def test_a_label_of_any_length_stays_in_its_column(label: str, side: int) -> None:
    images = torch.full((1, 3, side, side), 255, dtype=torch.uint8)
    grid = np.asarray(build_grid(images, columns=1, row_labels=[label]))
    ink = np.flatnonzero((grid < 200).any(axis=(0, 2)))
    assert grid.shape[1] < 300
    if label.strip():
        assert ink.min() >= GAP_PX
        assert ink.max() < grid.shape[1] - side - GAP_PX
    else:
        assert not ink.size


def test_saved_sheet_is_the_built_one(tmp_path: Path) -> None:
    images = make_images(2)
    save_grid(tmp_path / "sheets" / "one.png", images, 2, row_labels=["a dog"])
    with Image.open(tmp_path / "sheets" / "one.png") as saved:
        assert saved.format == "PNG"
        assert np.array_equal(
            np.asarray(saved), np.asarray(build_grid(images, 2, row_labels=["a dog"]))
        )
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["one.png"]


@pytest.mark.parametrize(
    ("images", "columns", "labels", "scale", "message"),
    [
        (torch.zeros(2, 3, 4, 4), 1, (), 1, "uint8"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), 1, (), 1, "N > 0"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 1, (), 1, "3, H, W"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 0, (), 1, "columns = 0"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 1, ("one",), 1, "1 row labels for 2 rows"),
    ],
)
def test_what_does_not_fit_is_refused(
    images: torch.Tensor, columns: int, labels: tuple[str, ...], scale: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_grid(images, columns, row_labels=labels, scale=scale)
