"""Training batches: images are decoded once; the order is a function of the position, not state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clipgan import artifacts
from clipgan.devices import upload
from clipgan.errors import DataError
from clipgan.images import to_unit_range
from clipgan.source_code import hash_sources

_MIRROR, _CAPTION, _ORDER = 1, 2, 3
"""Streams of random numbers, independent of each other."""


@dataclass(frozen=True)
class TrainingData:
    """Images with their features, row by row.

    ``images_uint8`` (N, 3, R, R) uint8, may be memory-mapped; ``image_features`` (N, D) and
    ``text_features`` (M, D) float16, unit norm; the captions of image i are the rows
    ``caption_offsets[i]:caption_offsets[i + 1]`` of the latter, ``caption_offsets`` (N + 1,) int64.

    Raises:
        DataError: the arrays do not fit each other.
    """

    images_uint8: NDArray[np.uint8]
    image_features: NDArray[np.float16]
    text_features: NDArray[np.float16]
    caption_offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        num_images = len(self.images_uint8)
        offsets = self.caption_offsets
        if (
            len(self.image_features) != num_images
            or len(offsets) != num_images + 1
            or offsets[0] != 0
            or offsets[-1] != len(self.text_features)
            or np.any(np.diff(offsets) < 0)
            or self.image_features.shape[1:] != self.text_features.shape[1:]
        ):
            raise DataError(
                f"features do not fit the images: {num_images} images, "
                f"{self.image_features.shape} image features, {self.text_features.shape} text "
                f"features, {len(offsets)} caption offsets; run `clipgan stage features` again"
            )

    @property
    def num_images(self) -> int:
        return len(self.images_uint8)


@dataclass(frozen=True)
class Batch:
    """Real images and what stands for them.

    Attributes:
        images: (B, 3, R, R) float32 in [-1, 1].
        image_features, text_features: (B, D) float32, unit norm; a text feature is zero where the
            image has no caption. Both are those of the image as it is stored.
        mirrored: (B,) bool, which images are shown mirrored; None: none is.
    """

    images: Tensor
    image_features: Tensor
    text_features: Tensor
    mirrored: Tensor | None = None

    @property
    def feature_images(self) -> Tensor:
        """The images that the features were computed from: never mirrored, (B, 3, R, R).

        The target of a reconstruction. Mirroring doubles what the discriminator takes for real, but
        a condition is a feature of one image: with both orientations for a target, the best answer
        would be the mean of the two.
        """
        if self.mirrored is None:
            return self.images
        return torch.where(self.mirrored[:, None, None, None], self.images.flip(-1), self.images)


class BatchLoader:
    """Batches as a pure function of the position in training.

    Positions count images since the start. Epoch e = position // N visits every image once in a
    seeded order; a batch may reach into the next epoch. Mirroring and the choice of a caption are
    hashes of (seed, position). So nothing needs saving: the whole state is ``images_seen``.
    """

    def __init__(
        self,
        data: TrainingData,
        batch_size: int,
        *,
        seed: int,
        mirror: bool,
        device: torch.device,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        """
        Args:
            batch_size: of all processes together, a multiple of ``num_processes``.
            rank: every ``num_processes``-th row from this one belongs to this process.

        Raises:
            DataError: the batch is larger than the data set.
        """
        if batch_size > data.num_images:
            raise DataError(
                f"train.batch_size = {batch_size} is larger than the {data.num_images} images of "
                "the training split: lower it or add images"
            )
        self.data, self.batch_size, self.mirror, self.device = data, batch_size, mirror, device
        self._seed = seed
        self._rows = slice(rank, None, num_processes)

    def batch_at(self, images_seen: int) -> Batch:
        """This process's rows of the batch that follows the first ``images_seen`` images."""
        positions = self._list_positions(images_seen)
        rows = self._choose_rows(positions)
        images = torch.from_numpy(self.data.images_uint8[rows])
        mirrored = None
        if self.mirror:
            mirrored = torch.from_numpy(_hash_positions(self._seed, _MIRROR, positions) >> 63 == 1)
            images[mirrored] = images[mirrored].flip(-1)
            mirrored = mirrored.to(self.device)
        return Batch(
            images=to_unit_range(upload(images, self.device)),
            image_features=self._to_device(self.data.image_features[rows]),
            text_features=self._to_device(self._choose_texts(rows, positions)),
            mirrored=mirrored,
        )

    def load_neighbours(self, images_seen: int, neighbours: NDArray[np.int64]) -> Tensor:
        """Images that stand for those of :meth:`batch_at`, (B, K, 3, R, R) float32 in [-1, 1].

        ``neighbours`` (N, K) are rows of the data for each row of it. None is mirrored.
        """
        rows = neighbours[self._choose_rows(self._list_positions(images_seen))]
        return to_unit_range(upload(torch.from_numpy(self.data.images_uint8[rows]), self.device))

    def _list_positions(self, images_seen: int) -> NDArray[np.uint64]:
        whole = np.arange(images_seen, images_seen + self.batch_size, dtype=np.uint64)
        return whole[self._rows]

    def _choose_rows(self, positions: NDArray[np.uint64]) -> NDArray[np.int64]:
        num_images = self.data.num_images
        rows = np.empty(len(positions), dtype=np.int64)
        epochs, inside = np.divmod(positions.astype(np.int64), num_images)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = _build_order(self._seed, int(epoch), num_images)[inside[here]]
        return rows

    def _choose_texts(
        self, rows: NDArray[np.int64], positions: NDArray[np.uint64]
    ) -> NDArray[np.float16]:
        first = self.data.caption_offsets[rows]
        counts = self.data.caption_offsets[rows + 1] - first
        # 53 bits make an exact float64 in [0, 1).
        uniform = (_hash_positions(self._seed, _CAPTION, positions) >> np.uint64(11)) * 2.0**-53
        texts = np.zeros((len(rows), self.data.image_features.shape[1]), dtype=np.float16)
        captioned = counts > 0
        chosen = first + (uniform * counts).astype(np.int64)
        texts[captioned] = self.data.text_features[chosen[captioned]]
        return texts

    def _to_device(self, features: NDArray[np.float16]) -> Tensor:
        return upload(torch.from_numpy(features.astype(np.float32)), self.device)


@lru_cache(maxsize=4)
def _build_order(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    # Philox is counter-based; its stream and Generator.permutation are stable across NumPy 2.
    bits = np.random.Philox(np.random.SeedSequence([seed, _ORDER, epoch]))
    return np.random.Generator(bits).permutation(num_images)


def _hash_positions(seed: int, stream: int, positions: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 uniform bits a position: SplitMix64 (Steele et al. 2014) over seed, stream, position."""
    key = _mix(np.array([seed], dtype=np.uint64) ^ _mix(np.array([stream], dtype=np.uint64)))
    return _mix(key ^ _mix(positions))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def build_image_cache(
    images_dir: Path, sample_ids: Sequence[str], resolution_px: int, cache_dir: Path
) -> NDArray[np.uint8]:
    """Decoded images in the order of ``sample_ids``: (N, 3, R, R) uint8, memory-mapped read-only.

    The file is ``cache_dir/<hash of images, ids, resolution and code>/images.npy``, so an unchanged
    call only maps it, in any process: of two that want it one makes it and the other waits. Stored
    images are reduced to ``resolution_px`` with Lanczos.

    Raises:
        DataError: an id is not in the folder, images are stored smaller than asked for, or a shard
            is missing or damaged.
    """
    path = locate_image_cache(images_dir, sample_ids, resolution_px, cache_dir)
    shape = (len(sample_ids), 3, resolution_px, resolution_px)
    with _locked(path.parent):
        if not path.exists():
            with artifacts.atomic_path(path) as temporary:
                cache: Any = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                _fill_cache(cache, images_dir, sample_ids, resolution_px)
                cache.flush()
                del cache
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def locate_image_cache(
    images_dir: Path, sample_ids: Sequence[str], resolution_px: int, cache_dir: Path
) -> Path:
    """Where :func:`build_image_cache` puts these images, whether they are there or not.

    Raises:
        DataError: images are stored smaller than asked for, or the manifest is damaged.
    """
    # Imported here and below, because training on arrays in memory needs no Parquet.
    from clipgan.data.shards import load_manifest

    manifest = load_manifest(images_dir)
    if resolution_px > manifest.resolution_px:
        raise DataError(
            f"train.resolution_px = {resolution_px}, but images are stored at "
            f"{manifest.resolution_px}: set ingest.resolution_px = {resolution_px}"
        )
    made_from = [manifest.fingerprint, list(sample_ids), resolution_px]
    name = artifacts.hash_json([*made_from, hash_sources(__name__)])[:16]
    return cache_dir / name / "images.npy"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of a process that died."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        (folder / ".lock").touch()  # `clipgan clean` goes by its time
        for partial in folder.glob(f".*{artifacts.TEMPORARY_SUFFIX}"):
            partial.unlink()  # of a process that was killed
        yield


def _fill_cache(
    cache: NDArray[np.uint8], images_dir: Path, sample_ids: Sequence[str], resolution_px: int
) -> None:
    from clipgan import schemas
    from clipgan.data.decoding import decode_image
    from clipgan.data.shards import iterate_tables

    rows = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    if len(rows) != len(sample_ids):
        raise DataError(f"{len(sample_ids) - len(rows)} sample ids are repeated")
    for table in iterate_tables(images_dir, [schemas.SAMPLE_ID, schemas.IMAGE]):
        ids = table[schemas.SAMPLE_ID].to_pylist()
        for sample_id, data in zip(ids, table[schemas.IMAGE], strict=True):
            row = rows.pop(sample_id, None)
            if row is not None:
                pixels = _reduce(decode_image(data.as_py()), resolution_px)
                cache[row] = pixels.transpose(2, 0, 1)
    if rows:
        raise DataError(
            f"{images_dir}: {len(rows)} sample ids are not there, such as {next(iter(rows))}; "
            "run `clipgan stage features` again"
        )


def load_some_images(
    images_dir: Path, split: str, resolution_px: int, count: int
) -> tuple[list[str], NDArray[np.uint8]]:
    """At most ``count`` images of a split with their ids: (N, 3, R, R) uint8.

    Evenly spaced over the first shards that hold so many: a large data set is not read through.

    Raises:
        DataError: a shard is missing or damaged.
    """
    from clipgan import schemas
    from clipgan.data.decoding import decode_image
    from clipgan.data.shards import iterate_tables

    ids: list[str] = []
    encoded: list[Any] = []
    for table in iterate_tables(images_dir, [schemas.SAMPLE_ID, schemas.IMAGE], split=split):
        ids += table[schemas.SAMPLE_ID].to_pylist()
        encoded += table[schemas.IMAGE]
        if len(ids) >= count:
            break
    rows = np.unique(np.linspace(0, len(ids) - 1, count).astype(int)) if ids else np.empty(0, int)
    pixels = np.empty((len(rows), 3, resolution_px, resolution_px), dtype=np.uint8)
    for place, row in enumerate(rows):
        decoded = _reduce(decode_image(encoded[row].as_py()), resolution_px)
        pixels[place] = decoded.transpose(2, 0, 1)
    return [ids[row] for row in rows], pixels


def _reduce(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    if pixels.shape[0] == side_px:
        return pixels
    resized = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS)
    return np.asarray(resized)
