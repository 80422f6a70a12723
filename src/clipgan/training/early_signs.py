"""Warnings at the start of a training: a CLIP that does not fit the data, and a long duration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipgan.progress import ProgressBar, format_duration

if TYPE_CHECKING:
    # Reads Parquet, which training on arrays in memory needs not.
    from clipgan.clip.feature_store import FeatureTable

CAPTIONS_COMPARED = 512
"""With so many the share is known to about 0.02, and the matrix takes a megabyte."""
LEAST_CAPTIONS = 10
LOW_RANK = 0.6
"""Share of other captions that an image's own one is nearer than: one half by chance, above 0.99
for the built-in CLIP on the built-in data."""
FORECAST_AFTER_SECONDS = 30.0
"""Before that the pace is slower: kernels are chosen and memory is allocated."""
LONG_SECONDS = 600.0
"""A shorter training needs no forecast besides the progress line's."""


def describe_blind_clip(table: FeatureTable, selected: NDArray[np.int64]) -> str | None:
    """A warning where the CLIP cannot match captions to images; None where it can, or where too few
    of the rows ``selected`` have captions to tell.

    By chance, the caption of an image is nearer to it than half of the other captions. CLIP is
    taken to fit where that share is at least :data:`LOW_RANK` and two standard errors above one
    half.
    """
    counts = np.diff(table.caption_offsets)
    captioned = selected[counts[selected] > 0]
    if len(captioned) > CAPTIONS_COMPARED:
        captioned = captioned[np.linspace(0, len(captioned) - 1, CAPTIONS_COMPARED).astype(int)]
    first = table.caption_offsets[captioned]
    words = np.array([table.captions[row] for row in first], dtype=object)
    if len(set(words)) < LEAST_CAPTIONS:
        return None
    images = table.image_features[captioned].astype(np.float32)
    similarities = images @ table.text_features[first].astype(np.float32).T
    other = words[:, None] != words[None, :]
    nearer = (similarities.diagonal()[:, None] > similarities) & other
    share = float((nearer.sum(1) / other.sum(1)).mean())
    # A share drawn uniformly from 0..1 has the variance 1 / 12.
    chance = 0.5 + 2 * (12 * len(captioned)) ** -0.5
    if share >= max(LOW_RANK, chance):
        return None
    return (
        f"the CLIP {table.clip.get('model', '')} does not understand these images or captions: an "
        f"image's own caption is nearer to it than {share:.0%} of the others, 50% is chance. Words "
        "will steer little, and its scores mean little; choose another (features.clip_model)"
    )


def note_blind_clip(table: FeatureTable, selected: NDArray[np.int64]) -> None:
    """Print what :func:`describe_blind_clip` says."""
    if said := describe_blind_clip(table, selected):
        print(f"note: {said}", flush=True)


class Forecast:
    """Says once how long a long training will take at the pace measured so far."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._is_said = False

    def update(self, bar: ProgressBar) -> None:
        """After every step."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, bar.done  # the first step is set-up
        elapsed = now - self._start[0]
        if self._is_said or not bar.shown or elapsed < FORECAST_AFTER_SECONDS:
            return
        self._is_said = True
        rate = (bar.done - self._start[1]) / elapsed
        seconds = (bar.total - bar.done) / max(rate, 1e-9)
        if seconds > LONG_SECONDS:
            print(
                f"at {rate:.3g} images/s the rest of {bar.total:,} images takes about "
                f"{format_duration(seconds)}; stopped at any moment, it goes on where it was. For "
                "a shorter training lower train.total_images",
                flush=True,
            )
