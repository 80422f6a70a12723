"""Features of a shard that is not finished: kept on disk piece by piece, so that a kill costs one.

Pieces lie in a folder of the run that makes them, which names the CLIP, the images and the code.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipgan.artifacts import atomic_path


class FeatureParts:
    """Pieces of one shard, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(
        self, name: str, shape: tuple[int, int], compute: Callable[[], NDArray[np.float16]]
    ) -> NDArray[np.float16]:
        """The piece as an earlier run left it, or what ``compute`` gives, which is then kept.

        Args:
            shape: that the piece must have; one that differs or is damaged is made again.
        """
        path = self.folder / f"{name}.npy"
        kept = _load(path)
        if kept is not None and kept.shape == shape and kept.dtype == np.float16:
            return kept
        found = compute()
        if np.isfinite(found).all():  # what is refused later must not come back
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, found)
        return found

    def remove(self) -> None:
        """Forget every piece: the shard is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _load(path: Path) -> NDArray[np.float16] | None:
    if not path.is_file():
        return None
    try:
        loaded: NDArray[np.float16] = np.load(path)
    except (OSError, ValueError, EOFError):
        return None  # cut short: it is made again
    return loaded
