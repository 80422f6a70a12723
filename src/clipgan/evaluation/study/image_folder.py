"""A folder of image files as a set to evaluate, identified by content and read in batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgan.artifacts import describe_non_folder, hash_json
from clipgan.config import IngestConfig
from clipgan.data.image_reader import read_image
from clipgan.data.ingest_report import count_reasons, format_counts
from clipgan.data.sources import FileFinding, RejectedFileError, SourceSample
from clipgan.data.sources.folder import list_folder
from clipgan.errors import DataError, EvaluationError
from clipgan.progress import progress_bar

_NAMED_FILES = 10
_SAME_EVERYWHERE = {"palette", "grayscale"}
"""Alterations that every tool makes in the same way."""


@dataclass(frozen=True)
class _Usable:
    """A file that is an image; ``size`` is (width, height) in px."""

    sample: SourceSample
    sha256: str
    size: tuple[int, int]
    altered: tuple[FileFinding, ...]


class ImageFolder:
    """Image files below a folder, in the order of their paths, read as ingestion reads them.

    Every file is decoded once at the beginning. Files that are no usable image are left out, and
    :meth:`list_warnings` names them.

    Attributes:
        names: of the usable files, relative to the folder.
        hashes: SHA-256 of each usable file's bytes.
        fingerprint: hash of the contents of all usable files in their order, not of their names.
        transform: what is done to a file before it is measured.

    Raises:
        EvaluationError: no such folder, or no usable image in it.
    """

    def __init__(self, folder: Path, reading: IngestConfig) -> None:
        """``reading`` is section ``ingest``: ``background`` and ``max_megapixels`` count here."""
        self.folder, self._reading = folder, reading
        self._usable: list[_Usable] = []
        self._rejected: list[FileFinding] = []
        self._inspect()
        if not self._usable:
            raise EvaluationError(
                f"{folder}: holds no usable image; {_name_files(self._rejected)}; give a folder of "
                "image files"
            )
        self.names = [usable.sample.key for usable in self._usable]
        self.hashes = [usable.sha256 for usable in self._usable]
        self.fingerprint = hash_json(self.hashes)
        self.transform = f"files as ingest reads them, over {reading.background}"

    def __len__(self) -> int:
        return len(self._usable)

    def iterate(self, batch_size: int) -> Iterator[Tensor]:
        """Read batches of (n, 3, H, W) uint8 in order; a batch ends where the size changes.

        Raises:
            EvaluationError: a file has changed since it was inspected; names it.
        """
        batch: list[Tensor] = []
        for usable in self._usable:
            image = self._load(usable.sample)
            if batch and (len(batch) == batch_size or batch[0].shape != image.shape):
                yield torch.stack(batch)
                batch = []
            batch.append(image)
        yield torch.stack(batch)

    def list_warnings(self) -> list[str]:
        """Name files that are left out, alterations that other tools do not make, and sizes."""
        warnings = []
        if self._rejected:
            total = len(self._usable) + len(self._rejected)
            warnings.append(
                f"{self.folder}: {len(self._rejected):,} of {total:,} files are left out: "
                f"{_name_files(self._rejected)}"
            )
        altered = [
            finding
            for usable in self._usable
            for finding in usable.altered
            if finding.reason not in _SAME_EVERYWHERE
        ]
        if altered:
            counts = format_counts(count_reasons(altered))
            warnings.append(f"{self.folder}: read as ingest reads images: {counts}")
        explained = {finding.reason: finding for finding in reversed(altered) if finding.detail}
        warnings += [
            f"{self.folder}: {finding.reason}, such as {finding.file}: {finding.detail}"
            for finding in explained.values()
        ]
        return [*warnings, *self._describe_sizes()]

    def _describe_sizes(self) -> list[str]:
        sizes = Counter(usable.size for usable in self._usable)
        if len(sizes) == 1:
            return []
        common = ", ".join(f"{w}x{h}: {n:,}" for (w, h), n in sizes.most_common(3))
        return [
            f"{self.folder}: images of {len(sizes)} sizes ({common}); each is resized for the "
            "networks by itself, so compare with a set that was made the same way"
        ]

    def _inspect(self) -> None:
        check_folder(self.folder)
        try:
            listing = list_folder(
                self.folder, max_megapixels=self._reading.max_megapixels, caption_lines="all"
            )
        except DataError:
            raise EvaluationError(
                f"{self.folder}: holds no image; give a folder of image files"
            ) from None
        self._rejected += listing.rejected
        total = len(listing.samples)
        with (
            progress_bar(f"read {self.folder.name}", total, "files") as bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            for result in pool.map(self._inspect_file, listing.samples):
                if isinstance(result, FileFinding):
                    self._rejected.append(result)
                else:
                    self._usable.append(result)
                bar.advance()

    def _inspect_file(self, sample: SourceSample) -> _Usable | FileFinding:
        try:
            data = sample.read()
            decoded = read_image(data, self._reading)
        except RejectedFileError as refusal:
            return FileFinding(sample.key, refusal.reason, refusal.detail)
        except OSError as error:
            return FileFinding(sample.key, "unreadable", error.strerror or str(error))
        altered = [
            FileFinding(sample.key, *alteration) for alteration in decoded.alterations.items()
        ]
        return _Usable(sample, sha256(data).hexdigest(), decoded.image.size, tuple(altered))

    def _load(self, sample: SourceSample) -> Tensor:
        try:
            pixels = np.array(read_image(sample.read(), self._reading).image)
        except (OSError, RejectedFileError) as error:
            raise EvaluationError(
                f"{self.folder / sample.key}: changed while it was measured ({error}); run again"
            ) from None
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_folder(folder: Path) -> None:
    """Refuse what cannot be a folder of images, without reading any image.

    Raises:
        EvaluationError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        what = describe_non_folder(folder)
        raise EvaluationError(f"{folder}: {what}; give a folder of image files")
    if not any(folder.iterdir()):
        raise EvaluationError(f"{folder}: holds no image; give a folder of image files")


def _name_files(findings: list[FileFinding]) -> str:
    named = ", ".join(
        f"{finding.file} ({finding.reason}: {finding.detail})"
        for finding in findings[:_NAMED_FILES]
    )
    rest = len(findings) - _NAMED_FILES
    return f"{named} and {rest:,} more" if rest > 0 else named
