"""The sources by the name that ``ingest.source`` gives: a new one is a file and a line here."""

from __future__ import annotations

from typing import Any

from pydantic import create_model

from clipgan.config.fields import Section
from clipgan.data.sources import Source
from clipgan.data.sources.emoji import EmojiSource
from clipgan.data.sources.folder import FolderSource

SOURCES: dict[str, type[Source]] = {"emoji": EmojiSource, "folder": FolderSource}


def build_keys() -> type[Section]:
    """The keys that all sources together have in section ``ingest``, as a section of their own."""
    fields: dict[str, Any] = {
        key: (field.annotation, field)
        for source in SOURCES.values()
        for key, field in source.model_fields.items()
    }
    return create_model("SourceKeys", __base__=Section, **fields)


def open_source(name: str, keys: dict[str, Any]) -> Source:
    """The source ``name``, with those of ``keys`` that are its own.

    Raises:
        ValueError: there is no such source, or pydantic's about a value.
    """
    if name not in SOURCES:
        raise ValueError(f"source = {name!r}: choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    return source.model_validate({key: keys[key] for key in source.model_fields if key in keys})
