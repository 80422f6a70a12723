"""The sheet shows what came in beside what was made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clipgan.data.contact_sheet import CONTACT_SHEET, save_contact_sheet
from clipgan.data.sources.folder import list_folder
from clipgan.grids import GAP_PX
from tests.stages.ingest_runs import make_config, run
from tests.unit.data.pictures import encode

CELL = 128
RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def fill(folder: Path) -> None:
    """A square, a wide picture with green ends, and a higher one that loses most."""
    folder.mkdir()
    wide = Image.new("RGB", (120, 60), GREEN)
    wide.paste(RED, (30, 0, 90, 60))
    high = Image.new("RGB", (60, 240), GREEN)
    high.paste(BLUE, (0, 90, 60, 150))
    for name, image in (("a", Image.new("RGB", (64, 64), YELLOW)), ("b", wide), ("c", high)):
        (folder / f"{name}.png").write_bytes(encode(image))


def read_cells(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (source, made) cells of the first column of pairs, from the top."""
    sheet = np.asarray(Image.open(path))
    # Counted from below and from the right: above is the title, on the left are the labels.
    rows = sheet.shape[0] // (CELL + GAP_PX)
    cells = []
    for row in range(rows):
        bottom = sheet.shape[0] - GAP_PX - (rows - 1 - row) * (CELL + GAP_PX)
        right = sheet.shape[1] - GAP_PX
        band = sheet[bottom - CELL : bottom]
        source = band[:, right - 2 * CELL - GAP_PX : right - CELL - GAP_PX]
        cells.append((source, band[:, right - CELL : right]))
    return cells


def shows(cell: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(cell.astype(int) - colour).max(axis=-1) < 8).any())


def test_the_strongest_crop_comes_first_and_both_sides_are_true(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    run(tmp_path, make_config(tmp_path / "photos", validation_fraction=0.0))
    cells = read_cells(tmp_path / "images" / CONTACT_SHEET)
    assert len(cells) == 3
    (high, high_square), (wide, wide_square), (square, same) = cells
    assert shows(high, BLUE)
    assert shows(high, GREEN)
    assert shows(high_square, BLUE)
    assert not shows(high_square, GREEN)
    assert shows(wide, GREEN)
    assert not shows(wide_square, GREEN)
    assert shows(square, YELLOW)
    assert shows(same, YELLOW)


def test_padded_squares_show_everything(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    run(tmp_path, make_config(tmp_path / "photos", validation_fraction=0.0, fit="pad"))
    for source, made in read_cells(tmp_path / "images" / CONTACT_SHEET)[:2]:
        assert shows(source, GREEN)
        assert shows(made, GREEN)


def test_the_same_folder_gives_the_same_bytes_and_a_lost_file_no_end(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    fill(photos)
    config = make_config(photos, validation_fraction=0.0)
    run(tmp_path, config)
    path = tmp_path / "images" / CONTACT_SHEET
    before = path.read_bytes()
    samples = list_folder(photos, max_megapixels=1.0, caption_lines="all").samples
    save_contact_sheet(tmp_path / "images", samples, config)
    assert path.read_bytes() == before
    (photos / "c.png").unlink()
    save_contact_sheet(tmp_path / "images", samples, config)
    source, made = read_cells(path)[0]
    assert not shows(source, BLUE)
    assert not shows(made, BLUE)
