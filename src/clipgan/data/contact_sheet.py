"""A sheet of source images beside the stored squares, the strongest changes of shape first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clipgan import schemas
from clipgan.artifacts import atomic_path
from clipgan.config import IngestConfig
from clipgan.data.fitting import measure_difference
from clipgan.data.image_reader import read_image
from clipgan.data.preparation import prepare_image
from clipgan.data.shards import iterate_tables
from clipgan.data.sources import RejectedFileError, SourceSample
from clipgan.grids import add_title, build_grid

CONTACT_SHEET = "contact_sheet.png"
_CELL_PX = 128
_ROWS, _BLOCKS = 8, 3
_GROUND = (216, 216, 216)
"""Colour around a source that is not square, so that its edges are visible."""
_TITLE = "left: the file as it came; right: the square it became (ingest.fit: {fit})"
_WORDS = {"crop": "cut off", "pad": "bars", "squash": "squashed"}


@dataclass(frozen=True)
class _Row:
    sample_id: str
    key: str
    width: int
    height: int

    @property
    def difference(self) -> float:
        return measure_difference(self.width, self.height)

    def describe(self, config: IngestConfig) -> str:
        size = f"{self.width}x{self.height}"
        if self.difference == 0:
            return f"{size}: {self.key}"
        return f"{self.difference:.0%} {_WORDS[config.fit]}, {size}: {self.key}"


def save_contact_sheet(
    images_dir: Path, samples: Sequence[SourceSample], config: IngestConfig
) -> None:
    """Write ``contact_sheet.png`` into a finished images folder, the same bytes every time.

    Args:
        samples: the source's, in the order of sample ids; 24 of them are read again.
    """
    chosen = _choose_rows(images_dir)
    blocks = [
        _draw_block(chosen[first : first + _ROWS], samples, config)
        for first in range(0, len(chosen), _ROWS)
    ]
    sheet = Image.new(
        "RGB",
        (sum(block.width for block in blocks), max(block.height for block in blocks)),
        "white",
    )
    left = 0
    for block in blocks:
        sheet.paste(block, (left, 0))
        left += block.width
    with atomic_path(images_dir / CONTACT_SHEET) as temporary:
        add_title(sheet, _TITLE.format(fit=config.fit)).save(temporary, format="PNG")


def _choose_rows(images_dir: Path) -> list[_Row]:
    columns = [schemas.SAMPLE_ID, schemas.SOURCE_KEY, schemas.WIDTH, schemas.HEIGHT]
    rows = [
        _Row(*(row[name] for name in columns))
        for table in iterate_tables(images_dir, columns)
        for row in table.to_pylist()
    ]
    return sorted(rows, key=lambda row: (-row.difference, row.sample_id))[: _ROWS * _BLOCKS]


def _draw_block(
    rows: Sequence[_Row], samples: Sequence[SourceSample], config: IngestConfig
) -> Image.Image:
    cells: list[NDArray[np.uint8]] = []
    labels = []
    for row in rows:
        label = row.describe(config)
        try:
            cells += _draw_pair(samples[int(row.sample_id.split("-")[0])].read(), config)
        except (OSError, RejectedFileError) as error:
            label = f"changed while it was read ({error}): {row.key}"
            cells += [np.full((_CELL_PX, _CELL_PX, 3), _GROUND, np.uint8)] * 2
        labels.append(label)
    images = torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)
    return build_grid(images, 2, row_labels=labels)


def _draw_pair(data: bytes, config: IngestConfig) -> list[NDArray[np.uint8]]:
    source = ImageOps.pad(read_image(data, config).image, (_CELL_PX, _CELL_PX), color=_GROUND)
    made = Image.fromarray(prepare_image(data, config).pixels)
    side = _CELL_PX - 2  # a frame shows where a square with a white edge ends
    method = Image.Resampling.NEAREST if made.width < side else Image.Resampling.LANCZOS
    framed = ImageOps.expand(made.resize((side, side), method), border=1, fill=_GROUND)
    return [np.asarray(source), np.asarray(framed)]
