"""Groups of generated images, one of which is left out at a time: what intervals are made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from clipgan.metrics.intervals import Estimate

GROUP_STREAM = 3
"""Second word of the random seed; apart from the streams of other choices."""


class Grouping:
    """Which group each of a set of images belongs to.

    Args:
        num_images: of the set.
        num_groups: wanted; fewer where a group would have less than two images, and none at all
            for fewer than four images.
        sources: what each image was made from, such as its caption's row; images of one source
            fall into one group and count as one above. None: each image has its own.
    """

    def __init__(
        self,
        num_images: int,
        num_groups: int,
        seed: int,
        sources: Sequence[Hashable] | None = None,
    ) -> None:
        places: dict[Hashable, int] = {}
        for source in range(num_images) if sources is None else sources:
            places.setdefault(source, len(places))
        self.num_sources = len(places)
        self.num_groups = min(num_groups, len(places) // 2) if len(places) >= 4 else 0
        rng = np.random.default_rng([seed, GROUP_STREAM])
        labels = rng.permutation(np.arange(len(places)) % max(self.num_groups, 1))
        if sources is not None:
            labels = labels[[places[source] for source in sources]]
        self.labels = torch.from_numpy(labels)

    def leave_out(self, compute: Callable[[Tensor], float]) -> tuple[float, ...]:
        """``compute`` of the boolean mask (N,) of images kept, for each group."""
        return tuple(compute(self.labels != group) for group in range(self.num_groups))

    def average(self, values: Tensor, **settings: int) -> Estimate:
        """Mean of one number an image, (N,)."""
        wide = values.double()
        left = self.leave_out(lambda kept: float(wide[kept].mean()))
        return Estimate(float(wide.mean()), left, count=self.num_sources, settings=settings)
