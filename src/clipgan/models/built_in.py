"""The generators that are part of the package: their names and their folders, which are bundles."""

from __future__ import annotations

from pathlib import Path

from clipgan.errors import CheckpointError
from clipgan.families.registry import FAMILIES, find_family

BUILT_IN = "built-in"
NO_WEIGHTS = "none"
"""The value of ``train.initial_weights`` for a training from random weights."""


def list_built_in() -> dict[str, Path]:
    """List the bundles by name: ``built-in``, and ``built-in-FAMILY`` of the other families."""
    folders = {spec.name: spec.base_folder for spec in FAMILIES.values()}
    first = next(iter(folders))
    return {
        BUILT_IN if name == first else f"{BUILT_IN}-{name}": folder
        for name, folder in folders.items()
        if folder is not None
    }


def get_base_folder(family: str) -> Path:
    """Return the bundle that ``built-in`` names where ``family`` is trained.

    Raises:
        CheckpointError: the family has no built-in generator.
    """
    folder = find_family(family).base_folder
    if folder is None:
        raise CheckpointError(
            f"train.initial_weights = {BUILT_IN}: family {family} has no built-in generator; set "
            f"it to {NO_WEIGHTS}, or to the folder of a bundle"
        )
    return folder
