"""Groups of generated images; intervals are computed by leaving out one group at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from clipgan.metrics.intervals import Estimate

GROUP_STREAM = 3
"""Second word of the random seed, which keeps this choice independent of all others."""


class Grouping:
    """Which group each of a set of images belongs to.

    Args:
        num_images: number of images in the set.
        num_groups: number wanted; there are fewer where a group would have less than two images,
            and none at all for fewer than four images.
        sources: what each image was made from, such as its caption's row. Images of one source fall
            into one group and count as one image here. None: each image has a source of its own.
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
        """Call ``compute`` with the boolean mask (N,) of the other images, once for each group."""
        return tuple(compute(self.labels != group) for group in range(self.num_groups))

    def average(self, values: Tensor, **settings: int) -> Estimate:
        """Average one number for each image, (N,)."""
        wide = values.double()
        left = self.leave_out(lambda kept: float(wide[kept].mean()))
        return Estimate(float(wide.mean()), left, count=self.num_sources, settings=settings)
