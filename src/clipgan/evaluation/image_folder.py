"""A folder of image files as a set to evaluate: named by content, read in batches of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clipgan.artifacts import hash_file, hash_json
from clipgan.errors import EvaluationError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


class ImageFolder:
    """Image files below a folder, in the order of their paths.

    Attributes:
        paths: of the files.
        hashes: SHA-256 of each file's bytes.
        fingerprint: of all files' contents in their order, whatever they are called.

    Raises:
        EvaluationError: no such folder, or no image in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise EvaluationError(f"{folder}: no such folder; give a folder of PNG files")
        self.paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not self.paths:
            raise EvaluationError(
                f"{folder}: holds no image ({', '.join(sorted(SUFFIXES))}); give a folder of PNG "
                "files"
            )
        self.hashes = [hash_file(path) for path in self.paths]
        self.fingerprint = hash_json(self.hashes)

    def __len__(self) -> int:
        return len(self.paths)

    def iterate(self, batch_size: int) -> Iterator[Tensor]:
        """Batches of (n, 3, H, W) uint8 in order; a batch ends where the size changes.

        Raises:
            EvaluationError: a file cannot be read; names it.
        """
        batch: list[Tensor] = []
        for path in self.paths:
            image = load_rgb(path)
            if batch and (len(batch) == batch_size or batch[0].shape != image.shape):
                yield torch.stack(batch)
                batch = []
            batch.append(image)
        yield torch.stack(batch)

    def describe_sizes(self) -> str | None:
        """A warning where the images differ in size; only their headers are read."""
        sizes: Counter[tuple[int, int]] = Counter()
        for path in self.paths:
            with Image.open(path) as image:
                sizes[image.size] += 1
        if len(sizes) == 1:
            return None
        common = ", ".join(f"{w}x{h}: {n:,}" for (w, h), n in sizes.most_common(3))
        return (
            f"{self.folder}: images of {len(sizes)} sizes ({common}); each is resized for the "
            "networks by itself, so compare with a set that was made the same way"
        )


def load_rgb(path: Path) -> Tensor:
    """A file as (3, H, W) uint8 RGB; transparency is dropped, as torch-fidelity does it.

    Raises:
        EvaluationError: it is no image, or cut off.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise EvaluationError(f"{path}: cannot be read ({error}); remove or replace it") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
