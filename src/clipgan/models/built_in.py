"""The generators that come along: their names and their folders, which are bundles."""

from __future__ import annotations

from pathlib import Path

from clipgan.errors import CheckpointError
from clipgan.families.registry import FAMILIES, find_family

BUILT_IN = "built-in"
NO_WEIGHTS = "none"
"""What ``train.initial_weights`` may say besides a folder."""


def find_built_in(name: str) -> Path | None:
    """The bundle behind what commands call it; None where ``name`` is no built-in generator's."""
    return _list_named().get(name)


def list_built_in_names() -> tuple[str, ...]:
    """What commands call them: ``built-in`` and, of the other families, ``built-in-FAMILY``."""
    return tuple(_list_named())


def get_base_folder(family: str) -> Path:
    """What ``built-in`` means where ``family`` is trained.

    Raises:
        CheckpointError: it has no built-in generator.
    """
    folder = find_family(family).base_folder
    if folder is None:
        raise CheckpointError(
            f"train.initial_weights = {BUILT_IN}: family {family} has no built-in generator; set "
            f"it to {NO_WEIGHTS}, or to the folder of a bundle"
        )
    return folder


def _list_named() -> dict[str, Path]:
    folders = {spec.name: spec.base_folder for spec in FAMILIES.values()}
    first = next(iter(folders))
    return {
        BUILT_IN if name == first else f"{BUILT_IN}-{name}": folder
        for name, folder in folders.items()
        if folder is not None
    }
