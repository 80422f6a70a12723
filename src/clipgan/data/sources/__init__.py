"""Where images and captions come from: a file or package for each source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from clipgan.config import IngestConfig
from clipgan.config.fields import Section


@dataclass(frozen=True)
class SourceSample:
    """One image a source offers, not read yet.

    ``key`` names it inside the source and in the report; ``concept`` groups images that must share
    a split (None: the image is a concept of its own); ``style`` is free text, "" for folders;
    ``caption_problems`` are ``(reason, detail)`` pairs for the report. ``read`` returns the
    encoded image and may raise OSError or :class:`RejectedFileError`.
    """

    key: str
    concept: str | None
    style: str
    captions: tuple[str, ...]
    caption_problems: tuple[tuple[str, str], ...]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class FileFinding:
    """A file of which something is reported: the reason's name, and ``detail`` for people."""

    file: str
    reason: str
    detail: str = ""


class RejectedFileError(Exception):
    """Raised while a sample is read or prepared; becomes a line of the ingest report."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class SourceListing:
    """All that a source offers, in a fixed order.

    ``identity`` is a JSON value that changes whenever the source's content does, and only then
    (versions, or names with contents); ``place`` is the place that the user has named, if any;
    ``rejected`` files and ``caption_problems`` come from the listing; ``by_design`` are alterations
    that belong to the source and are not reported per file.
    """

    name: str
    samples: tuple[SourceSample, ...]
    identity: Any
    place: str = ""
    rejected: tuple[FileFinding, ...] = ()
    caption_problems: tuple[FileFinding, ...] = ()
    by_design: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class KeptFiles:
    """What sources keep between runs: ``raw``, a folder of downloads, and ``remembered``, a file of
    content hashes, so that unchanged files are not read again (None: all are read)."""

    raw: Path
    remembered: Path | None = None


class Source(Section, ABC):
    """A kind of data set: its fields are its own keys of section ``ingest``.

    Registered in :mod:`clipgan.data.sources.registry`. ``places`` names the keys that say where
    the images lie. They do not decide the result, because the listing's identity covers contents.
    """

    places: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def list_samples(self, ingest: IngestConfig, kept: KeptFiles) -> SourceListing:
        """What the source offers, before any image is decoded.

        Args:
            ingest: the whole section, for what all sources share.
            kept: folders and files that are kept between runs.

        Raises:
            DataError: it is not there or holds no file.
        """
