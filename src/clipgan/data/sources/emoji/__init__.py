"""Source ``emoji``, the built-in data set; its drawings and names come in packages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clipgan.config import IngestConfig
from clipgan.config.fields import Fraction, tuple_of
from clipgan.data.sources import KeptFiles, Source, SourceListing

EmojiStyle = Literal["openmoji", "noto", "fluent", "line", "blueprint"]


class EmojiSource(Source):
    """Drawings of emoji in one style or several."""

    emoji_styles: Annotated[
        tuple_of(EmojiStyle, min_length=1),  # type: ignore[valid-type]
        Field(description="noto and fluent are fetched from the npm registry"),
    ]
    caption_style_fraction: Annotated[
        Fraction, Field(description="of the drawings have captions that name their look")
    ]

    def list_samples(self, ingest: IngestConfig, kept: KeptFiles) -> SourceListing:
        """See :func:`clipgan.data.sources.emoji.drawings.list_emoji`."""
        from clipgan.data.sources.emoji.drawings import list_emoji

        return list_emoji(
            self.emoji_styles,
            ingest.resolution_px,
            kept.raw,
            caption_style_fraction=self.caption_style_fraction,
            seed=ingest.split_seed,
        )
