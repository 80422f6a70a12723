"""Names of emoji by code points, from the pip package ``emoji``, cleaned into captions."""

from __future__ import annotations

import re
from functools import cache

import emoji

CODE_VARIATION = 0xFE0F
CODE_REGIONAL_A, CODE_REGIONAL_Z = 0x1F1E6, 0x1F1FF
_FULLY_QUALIFIED = 2


def parse_file_stem(stem: str) -> tuple[int, ...]:
    """Code points of a drawing's file name such as ``1F3F3-FE0F-200D-1F308``.

    Leading zeros, letter case and the separator (``-`` or ``_``) differ between packages and mean
    nothing; the variation selector FE0F is dropped, as packages disagree on where it stands.
    """
    points = (int(part, 16) for part in re.split("[-_]", stem))
    return tuple(point for point in points if point != CODE_VARIATION)


def format_code_points(points: tuple[int, ...]) -> str:
    """``(0x1F34E,)`` -> ``1f34e``."""
    return "-".join(f"{point:04x}" for point in points)


@cache
def load_captions() -> dict[tuple[int, ...], tuple[str, ...]]:
    """Captions of every emoji: its English name, then its aliases, without repetitions.

    Keys are code points without FE0F. Forms that differ in FE0F only share one entry; the name of
    the fully qualified form comes first.
    """
    entries: dict[tuple[int, ...], list[tuple[bool, list[str]]]] = {}
    for text, facts in emoji.EMOJI_DATA.items():
        points = tuple(ord(char) for char in text if ord(char) != CODE_VARIATION)
        names = [facts["en"], *facts.get("alias", [])]
        entries.setdefault(points, []).append((facts["status"] != _FULLY_QUALIFIED, names))
    return {
        points: _clean_all(points, [name for _, names in sorted(forms) for name in names])
        for points, forms in sorted(entries.items())
    }


def _clean_all(points: tuple[int, ...], names: list[str]) -> tuple[str, ...]:
    is_flag = all(CODE_REGIONAL_A <= point <= CODE_REGIONAL_Z for point in points)
    captions: dict[str, str] = {}
    for name in names:
        caption = clean_name(name)
        # The package names a country's flag by the country alone, which also names its people,
        # food and map.
        if is_flag and "flag" not in caption.lower():
            caption = f"flag for {caption}"
        # "A button (blood type)" and the alias "a button blood type" are one caption.
        captions.setdefault(re.sub(r"[\W_]+", " ", caption).strip().lower() or caption, caption)
    return tuple(captions.values())


def clean_name(name: str) -> str:
    """``:smiling_face_with_sunglasses:`` -> ``smiling face with sunglasses``."""
    text = name.strip(":").replace("_", " ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.sub(r"\s+", " ", text).strip()
