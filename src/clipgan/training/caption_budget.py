"""Which captions a training may look at: the semi-supervised setting, chosen by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipgan.errors import DataError
from clipgan.random_draws import derive_seed


def choose_captioned(
    sample_ids: Sequence[str], num_captions: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """The images whose captions may be used: ``fraction`` of all images, among those with captions.

    The choice follows a hash of (seed, sample id), so it depends neither on the order of the files
    nor on the other images, and the choice at a smaller fraction is part of that at a larger one.

    Args:
        sample_ids: of the N training images.
        num_captions: (N,) of each of them.

    Returns:
        (N,) true where the captions may be used.

    Raises:
        DataError: fewer images have captions than ``fraction`` asks for.
    """
    captioned = num_captions > 0
    available, total = int(captioned.sum()), len(captioned)
    budget = round(fraction * total)
    if available < budget:
        largest = math.floor(1000 * available / total) / 1000
        raise DataError(
            f"{total - available:,} of {total:,} training images have no caption, and "
            f"caption_fraction = {fraction} needs those of {budget:,}: set it to {largest} or "
            "less, pseudo_text_probability to 1.0 (language-free), or caption them"
        )
    if available == budget:
        return captioned
    rows = np.flatnonzero(captioned)
    ranks = [derive_seed(seed, "caption budget", sample_ids[row]) for row in rows.tolist()]
    chosen = np.zeros(total, dtype=np.bool_)
    chosen[rows[np.argsort(ranks, kind="stable")[:budget]]] = True
    return chosen
