"""Grids of images with a label beside each row: prompts x samples, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clipgan.artifacts import atomic_path

GAP_PX = 4
LABEL_PADDING_PX = 10
TITLE_FONT_PX = 18
LABEL_COLOR = (38, 38, 38)
BACKGROUND = (255, 255, 255)


def save_grid(
    path: Path,
    images_uint8: Tensor,
    columns: int,
    *,
    row_labels: Sequence[str] = (),
    scale: int = 1,
) -> None:
    """Write a grid of images as PNG, atomically.

    Args:
        path: the PNG to write.
        images_uint8: (N, 3, H, W) uint8, filled row by row; the last row may be short.
        columns: images in a row.
        row_labels: one text a row, wrapped at the left of it; none: no label column.
        scale: each pixel becomes a square of this side.

    Raises:
        ValueError: shapes, dtype or counts do not fit.
    """
    grid = build_grid(images_uint8, columns, row_labels=row_labels, scale=scale)
    with atomic_path(path) as temporary:
        grid.save(temporary, format="PNG", optimize=True)


def build_grid(
    images_uint8: Tensor, columns: int, *, row_labels: Sequence[str] = (), scale: int = 1
) -> Image.Image:
    """The grid of :func:`save_grid` as an RGB picture."""
    num_rows = _count_rows(images_uint8, columns, row_labels, scale)
    cell_height, cell_width = (side * scale for side in images_uint8.shape[-2:])
    font = _load_font(_choose_font_size(cell_height))
    line_height = _measure_line_height(font)
    texts = [_wrap(label, font, cell_width, cell_height // line_height) for label in row_labels]
    label_width = _measure_label_width(texts, font)
    row_height = max(cell_height, line_height if texts else 0)
    grid = Image.new(
        "RGB",
        (
            GAP_PX + label_width + columns * (cell_width + GAP_PX),
            GAP_PX + num_rows * (row_height + GAP_PX),
        ),
        BACKGROUND,
    )
    pixels = images_uint8.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        picture = Image.fromarray(image).resize((cell_width, cell_height), Image.Resampling.NEAREST)
        left = GAP_PX + label_width + column * (cell_width + GAP_PX)
        top = GAP_PX + row * (row_height + GAP_PX) + (row_height - cell_height) // 2
        grid.paste(picture, (left, top))
    draw = ImageDraw.Draw(grid)
    for row, lines in enumerate(texts):
        middle = GAP_PX + row * (row_height + GAP_PX) + row_height / 2
        for number, line in enumerate(lines):
            y = middle + (number - (len(lines) - 1) / 2) * line_height
            # Right-aligned at the middle of the line: the text sits against its own images.
            x = GAP_PX + label_width - LABEL_PADDING_PX
            draw.text((x, y), line, font=font, fill=LABEL_COLOR, anchor="rm")
    return grid


def add_title(grid: Image.Image, title: str) -> Image.Image:
    """The grid below one line of text, which is not wrapped."""
    font = _load_font(TITLE_FONT_PX)
    height = _measure_line_height(font) + 2 * GAP_PX
    titled = Image.new("RGB", (grid.width, grid.height + height), BACKGROUND)
    titled.paste(grid, (0, height))
    corner = (LABEL_PADDING_PX, height / 2)
    ImageDraw.Draw(titled).text(corner, title, font=font, fill=LABEL_COLOR, anchor="lm")
    return titled


def _count_rows(images: Tensor, columns: int, row_labels: Sequence[str], scale: int) -> int:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or not len(images):
        raise ValueError(
            f"expected (N, 3, H, W) uint8 images, N > 0, not {tuple(images.shape)} {images.dtype}"
        )
    if columns < 1 or scale < 1:
        raise ValueError(f"columns = {columns}, scale = {scale}: both must be at least 1")
    num_rows = math.ceil(len(images) / columns)
    if row_labels and len(row_labels) != num_rows:
        raise ValueError(f"{len(row_labels)} row labels for {num_rows} rows")
    return num_rows


@cache
def _load_font(size_px: int) -> ImageFont.FreeTypeFont:
    # matplotlib bundles DejaVu Sans: one font with wide coverage, the same on every machine.
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size_px)


def _choose_font_size(cell_height: int) -> int:
    return max(11, min(20, cell_height // 7))


def _measure_line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


def _measure_label_width(texts: Sequence[Sequence[str]], font: ImageFont.FreeTypeFont) -> int:
    if not texts:
        return 0
    widest = max((font.getlength(line) for lines in texts for line in lines), default=0.0)
    return math.ceil(widest) + 2 * LABEL_PADDING_PX


def _wrap(label: str, font: ImageFont.FreeTypeFont, cell_width: int, max_lines: int) -> list[str]:
    """Lines no wider than the label column, cut with an ellipsis where they are too many."""
    width = max(110, min(240, int(cell_width * 1.8)))
    lines: list[str] = []
    for word in label.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.extend(_break_word(word, font, width))
    allowed = max(1, max_lines)
    if len(lines) > allowed:
        last = lines[allowed - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: allowed - 1], last.rstrip() + "…"]
    return lines


def _break_word(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and font.getlength(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces
