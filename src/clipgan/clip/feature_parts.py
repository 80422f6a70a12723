"""Features of an unfinished shard, stored in pieces, so that an interruption costs one piece.

The pieces lie in the folder of one run, whose name depends on the CLIP, the images and the code.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipgan.artifacts import atomic_path


class FeatureParts:
    """Named pieces of one shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(
        self, name: str, shape: tuple[int, int], compute: Callable[[], NDArray[np.float16]]
    ) -> NDArray[np.float16]:
        """Read the piece that an earlier run stored, or compute it and store it.

        Args:
            shape: of the piece; one of another shape or a damaged one is computed again.
        """
        path = self.folder / f"{name}.npy"
        kept = _load(path)
        if kept is not None and kept.shape == shape and kept.dtype == np.float16:
            return kept
        features = compute()
        if np.isfinite(features).all():  # others are refused later and must not be stored
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, features)
        return features

    def remove(self) -> None:
        """Delete all pieces once the shard is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _load(path: Path) -> NDArray[np.float16] | None:
    if not path.is_file():
        return None
    try:
        loaded: NDArray[np.float16] = np.load(path)
    except (OSError, ValueError, EOFError):
        return None  # truncated, so it is computed again
    return loaded
