"""OpenMoji's drawings, rendered as they are or in another look made from the layers of their SVGs.

A drawing is a stack of named groups: areas of colour, and the lines that outline them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import resvg_py

from clipgan.data.sources import RejectedFileError

_SVG = "{http://www.w3.org/2000/svg}"
_LINE_LAYERS: Final = frozenset({"line", "line-supplement"})
_SIDE = "72"
"""Of the square every drawing fills, in its own units."""
_WHITE = "#ffffff"
_PAPER, _WASH_DARK, _WASH_LIGHT, _CHALK = "#1d4f91", "#0f3269", "#86b8ee", "#f4f9ff"
_LUMA = (0.299, 0.587, 0.114)


def draw_in_colour(path: Path, resolution_px: int) -> bytes:
    """The drawing as it is, on white; PNG."""
    return _render(path.read_text(encoding="utf-8"), resolution_px, _WHITE)


def draw_lines(path: Path, resolution_px: int) -> bytes:
    """Its lines alone, black on white; PNG.

    Raises:
        RejectedFileError: it has none.
    """
    root = ElementTree.parse(path).getroot()
    for layer in list(root):
        if layer.get("id") not in _LINE_LAYERS:
            root.remove(layer)
    if all(part.tag == f"{_SVG}g" for layer in root for part in layer.iter()):
        raise RejectedFileError("no_lines", "the drawing consists of areas alone")
    return _render(_write(root), resolution_px, _WHITE)


def draw_blueprint(path: Path, resolution_px: int) -> bytes:
    """White lines on blue paper, areas as a wash in blues by their luma; PNG."""
    root = ElementTree.parse(path).getroot()
    for layer in root:
        is_line = layer.get("id") in _LINE_LAYERS
        layer.set("filter", "url(#lines)" if is_line else "url(#wash)")
    root.insert(0, _build_filter("lines", _CHALK, _CHALK))
    root.insert(0, _build_filter("wash", _WASH_DARK, _WASH_LIGHT))
    return _render(_write(root), resolution_px, _PAPER)


def _build_filter(name: str, dark: str, light: str) -> ElementTree.Element:
    """Every colour becomes the mixture of two by its luma; transparency stays."""
    rows = []
    for low, high in zip(_to_channels(dark), _to_channels(light), strict=True):
        rows += [*((high - low) * weight for weight in _LUMA), 0.0, low]
    # The whole square: the box around a straight line has no area, and would show nothing.
    box = {"x": "0", "y": "0", "width": _SIDE, "height": _SIDE, "filterUnits": "userSpaceOnUse"}
    made = ElementTree.Element(
        f"{_SVG}filter", {"id": name, **box, "color-interpolation-filters": "sRGB"}
    )
    values = " ".join(f"{value:.6f}" for value in (*rows, 0.0, 0.0, 0.0, 1.0, 0.0))
    ElementTree.SubElement(made, f"{_SVG}feColorMatrix", {"type": "matrix", "values": values})
    return made


def _to_channels(colour: str) -> tuple[float, ...]:
    """``#rrggbb`` -> red, green, blue in [0, 1]."""
    return tuple(byte / 255 for byte in bytes.fromhex(colour[1:]))


def _write(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def _render(svg: str, resolution_px: int, background: str) -> bytes:
    # System fonts are skipped so that the pixels do not depend on the machine.
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=resolution_px,
        height=resolution_px,
        background=background,
        skip_system_fonts=True,
    )
    return bytes(png)
