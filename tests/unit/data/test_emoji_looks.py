"""OpenMoji's drawings in several looks, and captions that name the look of a share of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clipgan.data.sources import RejectedFileError, SourceListing
from clipgan.data.sources.emoji import EmojiStyle
from clipgan.data.sources.emoji.drawings import STYLE_NAMES, list_emoji
from clipgan.data.sources.emoji.looks import draw_blueprint, draw_in_colour, draw_lines

DRAWING = """\
<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
  <g id="color"><path fill="#ff0000" d="M0 0H72V36H0Z"/></g>
  <g id="line">{line}</g>
</svg>
"""
STRAIGHT_LINE = '<path fill="none" stroke="#000" stroke-width="8" d="M0 54H72"/>'
PAPER, CHALK = (0x1D, 0x4F, 0x91), (0xF4, 0xF9, 0xFF)
LOOKS: tuple[EmojiStyle, ...] = ("openmoji", "line", "blueprint")


def draw(
    folder: Path, look: Callable[[Path, int], bytes], line: str = STRAIGHT_LINE
) -> NDArray[np.uint8]:
    path = folder / "drawing.svg"
    path.write_text(DRAWING.format(line=line))
    return np.array(Image.open(io.BytesIO(look(path, 72))).convert("RGB"))


def list_looks(
    fraction: float, seed: int = 0, styles: tuple[EmojiStyle, ...] = LOOKS
) -> SourceListing:
    return list_emoji(styles, 64, Path("unused"), caption_style_fraction=fraction, seed=seed)


def is_named(captions: tuple[str, ...]) -> bool:
    named = [
        caption.endswith(tuple(f", {name}" for name in STYLE_NAMES.values()))
        for caption in captions
    ]
    assert len(set(named)) == 1, "all captions of an image or none"
    return named[0]


def test_lines_alone_are_drawn_in_black_on_white(tmp_path: Path) -> None:
    pixels = draw(tmp_path, draw_lines)
    assert (pixels[:36] == 255).all(), "areas are gone"
    assert (pixels[54] == 0).all()
    assert tuple(draw(tmp_path, draw_in_colour)[18, 36]) == (255, 0, 0)


@pytest.mark.parametrize("line", ["", "<g/>"])
def test_a_drawing_without_lines_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(RejectedFileError, match="no_lines: the drawing consists of areas alone"):
        draw(tmp_path, draw_lines, line)


def test_a_blueprint_is_white_lines_and_a_wash_by_luma(tmp_path: Path) -> None:
    pixels = draw(tmp_path, draw_blueprint)
    assert tuple(pixels[70, 36]) == PAPER
    # A straight line has a bounding box without area, which a filter of its box would lose.
    assert tuple(pixels[54, 36]) == CHALK
    dark, light = np.array([0x0F, 0x32, 0x69]), np.array([0x86, 0xB8, 0xEE])
    red_has_luma = 0.299
    assert pixels[18, 36] == pytest.approx(dark + red_has_luma * (light - dark), abs=1)


def test_looks_of_one_emoji_share_its_concept() -> None:
    samples = {sample.key: sample for sample in list_looks(0.0).samples}
    looks = [samples[f"{style}/1f34e"] for style in LOOKS]
    assert {look.concept for look in looks} == {"red apple"}
    assert {look.captions for look in looks} == {("red apple", "apple")}
    assert len({look.read() for look in looks}) == 3
    assert "blueprint/1f44b-1f3ff" in samples
    assert "line/1f44b-1f3ff" not in samples, "lines show no skin tone"


@pytest.mark.parametrize(
    ("fraction", "counts"), [(0.0, {0}), (0.5, {1, 2}), (2 / 3, {2}), (1.0, {3})]
)
def test_that_fraction_of_the_looks_is_named(fraction: float, counts: set[int]) -> None:
    found: dict[str, list[bool]] = {}
    for sample in list_looks(fraction).samples:
        found.setdefault(sample.key.partition("/")[2], []).append(is_named(sample.captions))
    whole = {sum(named) for named in found.values() if len(named) == 3}
    assert whole == counts
    every = [named for looks in found.values() for named in looks]
    assert np.mean(every) == pytest.approx(fraction, abs=0.02)


def test_which_ones_is_a_matter_of_the_seed() -> None:
    def choose(seed: int) -> list[bool]:
        return [is_named(s.captions) for s in list_looks(0.5, seed, ("openmoji",)).samples]

    first, again, other = choose(0), choose(0), choose(1)
    assert first == again
    assert 0.4 < np.mean([a == b for a, b in zip(first, other, strict=True)]) < 0.6


def test_captions_say_the_look_in_plain_words() -> None:
    named = {sample.key: sample.captions for sample in list_looks(1.0).samples}
    assert named["line/1f34e"] == ("red apple, line drawing", "apple, line drawing")
    assert named["openmoji/1f34e"][0] == "red apple, flat drawing"
