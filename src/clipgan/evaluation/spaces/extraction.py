"""Extraction of features from images in batches, plain and blurred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan.evaluation.spaces.blur import blur
from clipgan.evaluation.spaces.checks import check_finite
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.spaces.statistics import GaussianStatistics
from clipgan.threads import renew_threads

T = TypeVar("T")


@dataclass(frozen=True)
class SpaceFeatures:
    """Features of a set of images in one space.

    Attributes:
        plain: (N, D) float32.
        logits: (N, C) of the network's classes; None: it has none.
        blurred: radius in px -> (N, D) of the blurred images.
        statistics: of ``plain``; None: not computed yet.
    """

    plain: Tensor
    logits: Tensor | None = None
    blurred: Mapping[int, Tensor] = field(default_factory=dict)
    statistics: GaussianStatistics | None = None
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return the result of ``compute``, which is called once for all that ask for ``name``."""
        if name not in self._known:
            self._known[name] = compute()
        result: T = self._known[name]
        return result


class FeatureCollector:
    """Gathers the features of a stream of images in one space.

    Args:
        radii: in px; features of images blurred by each are extracted besides those of plain ones.
    """

    def __init__(
        self, space: FeatureSpace, radii: Iterable[int], *, batch_size: int, device: torch.device
    ) -> None:
        self.space, self.device = space, device
        self._batch_size = min(batch_size, space.batch_size) if device.type == "cpu" else batch_size
        self._plain: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._blurred: dict[int, list[Tensor]] = {radius: [] for radius in radii}

    @torch.inference_mode()
    def add(self, images_uint8: Tensor) -> None:
        """Extract the features of images (N, 3, H, W) uint8."""
        for batch in torch.split(images_uint8, self._batch_size):
            renew_threads()
            images = batch.to(self.device)
            features, logits = self.space.encode(images)
            self._plain.append(features.float().cpu())
            if logits is not None:
                self._logits.append(logits.float().cpu())
            for radius, parts in self._blurred.items():
                parts.append(self.space.encode(blur(images, radius))[0].float().cpu())

    def collect(self, what: str) -> SpaceFeatures:
        """Return all features in the order of their images.

        Raises:
            EvaluationError: a feature is NaN or infinite; names ``what`` and the first image.
        """
        # Tensors made in inference mode may not be changed in place; copies made here may.
        plain = torch.cat(self._plain).clone()
        check_finite(plain, f"{what} in {self.space.spec}")
        blurred = {radius: torch.cat(parts).clone() for radius, parts in self._blurred.items()}
        logits = torch.cat(self._logits).clone() if self._logits else None
        return SpaceFeatures(plain, logits, blurred)


def iterate_batches(images: NDArray[np.uint8], batch_size: int) -> Iterator[Tensor]:
    """Copy a mapped array of images (N, 3, H, W) in batches of ``batch_size``."""
    for start in range(0, len(images), batch_size):
        yield torch.from_numpy(np.array(images[start : start + batch_size]))
