"""The generators that come along: their names and their folders, which are bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipgan.config import Family

_ASSETS = Path(__file__).parents[1] / "assets"
BUILT_IN = "built-in"
NO_WEIGHTS = "none"
"""What ``train.initial_weights`` may say besides a folder."""
BUILT_IN_FOLDERS: dict[Family, Path] = {
    "lafite": _ASSETS / "base_generator",
    "galip": _ASSETS / "base_galip",
}
"""Of each family's base generator."""
_FAMILIES: dict[str, Family] = {BUILT_IN: "lafite", "built-in-galip": "galip"}
BUILT_IN_NAMES = tuple(_FAMILIES)
"""What commands call them."""


def find_built_in(name: str) -> Path | None:
    """The bundle's folder; None where ``name`` is no name of a built-in generator."""
    family = _FAMILIES.get(name)
    return None if family is None else BUILT_IN_FOLDERS[family]
