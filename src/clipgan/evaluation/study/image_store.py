"""Generated images are kept on disk while they are measured; 30,000 at 256 px take 6 GB."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan.errors import EvaluationError


class ImageStore:
    """Images (N, 3, R, R) uint8 in a file, filled in order."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def fill(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Store each batch and pass it on.

        Raises:
            EvaluationError: the batches are not uint8 images of this size, or not N in all.
        """
        count = 0
        for batch in batches:
            room = len(self._images) - count
            fits = batch.dtype == torch.uint8 and batch.shape[1:] == self._images.shape[1:]
            if not fits or len(batch) > room:
                raise self._refuse(count + len(batch), tuple(batch.shape[1:]), batch.dtype)
            self._images[count : count + len(batch)] = batch.numpy()
            count += len(batch)
            yield batch
        if count != len(self._images):
            raise self._refuse(count, self._images.shape[1:], torch.uint8)

    def load(self, rows: Iterable[int]) -> Tensor:
        """(len(rows), 3, R, R) uint8."""
        return torch.from_numpy(np.array(self._images[list(rows)]))

    def _refuse(self, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> EvaluationError:
        return EvaluationError(
            f"the generator made {(count, *shape)} {dtype}, {self._images.shape} uint8 were asked "
            "for: evaluate needs every sample"
        )


@contextmanager
def open_image_store(count: int, side_px: int) -> Iterator[ImageStore]:
    """Open a store for ``count`` square images, which is deleted at the end of the block."""
    # `clipgan clean` removes the folders whose process no longer exists.
    with tempfile.TemporaryDirectory(prefix=f"clipgan-{os.getpid()}-") as folder:
        shape = (count, 3, side_px, side_px)
        mapped = np.lib.format.open_memmap(Path(folder) / "images.npy", "w+", np.uint8, shape)
        yield ImageStore(mapped)
