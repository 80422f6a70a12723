"""Source samples -> encoded squares, several at a time, in order."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from clipgan.config import IngestConfig
from clipgan.data.preparation import encode_image, prepare_image
from clipgan.data.sources import FileFinding, RejectedFileError, SourceSample

_QUEUED_PER_WORKER = 8


@dataclass(frozen=True)
class ProcessedSample:
    """An image ready to be stored. ``content`` is the hash of its pixels (32 hexadecimal digits);
    ``width`` and ``height`` are the source's, in pixels; ``alterations`` are
    ``{reason: detail}``."""

    sample: SourceSample
    encoded: bytes
    content: str
    width: int
    height: int
    alterations: dict[str, str]

    @property
    def concept(self) -> str:
        """The sample's concept; an image without one is a concept of its own."""
        return self.content if self.sample.concept is None else self.sample.concept


def process_in_order(
    samples: Sequence[SourceSample], config: IngestConfig
) -> Iterator[ProcessedSample | FileFinding]:
    """Read, prepare and encode every sample; a refused one becomes its finding.

    Threads suffice: Pillow, resvg and zlib let go of the interpreter lock while they work.
    """
    workers = os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    queue: deque[Future[ProcessedSample | FileFinding]] = deque()
    try:
        for sample in samples:
            queue.append(pool.submit(_process_sample, sample, config))
            if len(queue) >= workers * _QUEUED_PER_WORKER:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _process_sample(sample: SourceSample, config: IngestConfig) -> ProcessedSample | FileFinding:
    try:
        prepared = prepare_image(sample.read(), config)
    except RejectedFileError as refusal:
        return FileFinding(sample.key, refusal.reason, refusal.detail)
    except OSError as error:
        return FileFinding(sample.key, "unreadable", error.strerror or str(error))
    return ProcessedSample(
        sample=sample,
        encoded=encode_image(prepared.pixels, config),
        content=hashlib.sha256(prepared.pixels.tobytes()).hexdigest()[:32],
        width=prepared.width,
        height=prepared.height,
        alterations=prepared.alterations,
    )
