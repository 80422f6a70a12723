"""Where images and captions come from: one module a source format, all giving SourceSample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceSample:
    """One image a source offers, not read yet.

    ``key`` names it inside the source and in the report; ``concept`` groups images that must share
    a split (None: the image is a concept of its own); ``style`` is free text, "" for folders;
    ``caption_problems`` are ``(reason, detail)`` pairs for the report. ``read`` gives the encoded
    image and may raise OSError or :class:`RejectedFileError`.
    """

    key: str
    concept: str | None
    style: str
    captions: tuple[str, ...]
    caption_problems: tuple[tuple[str, str], ...]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Rejection:
    """A file that gives no image, with the reason's name and what exactly was found."""

    key: str
    reason: str
    detail: str


class RejectedFileError(Exception):
    """Raised while a sample is read or prepared; becomes a line of the ingest report."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class SourceListing:
    """All that a source offers, in a fixed order.

    ``identity`` is a JSON value that changes whenever the source's content does, and only then
    (versions, or names with contents); ``rejected`` and ``caption_problems`` are what was found
    while listing; ``by_design`` are alterations that belong to the source and are not reported per
    file.
    """

    name: str
    samples: tuple[SourceSample, ...]
    identity: Any
    rejected: tuple[Rejection, ...] = ()
    caption_problems: tuple[Rejection, ...] = ()
    by_design: frozenset[str] = field(default_factory=frozenset)
