"""Real images of one split, which are decoded only when their features are not known yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clipgan.evaluation.spaces.blur import blur
from clipgan.evaluation.spaces.extraction import FeatureCollector, SpaceFeatures, iterate_batches
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.spaces.statistics import GaussianStatistics, compute_statistics
from clipgan.evaluation.study.reference import (
    ReferenceIndex,
    load_reference_images,
    open_reference_images,
)
from clipgan.evaluation.study.reference_cache import FeatureCache, Tensors, describe_features
from clipgan.progress import progress_bar
from clipgan.source_code import hash_sources

PLAIN, MIRRORED = "none", "mirrored"


class RealImages:
    """Images and features of the rows of an index.

    Args:
        resolution_px: side of the images whose features are extracted.
        picture_px: side of the images that :meth:`load` returns.
        whole: specs of the feature spaces in which all rows will be needed. All are extracted at
            once there, and every choice of rows is a part of them.
    """

    def __init__(
        self,
        index: ReferenceIndex,
        resolution_px: int,
        cache: FeatureCache,
        *,
        batch_size: int,
        device: torch.device,
        picture_px: int,
        whole: Collection[str],
    ) -> None:
        self.index, self.resolution_px, self.picture_px = index, resolution_px, picture_px
        self._cache, self._batch_size, self._device = cache, batch_size, device
        self._whole = frozenset(whole)
        self._known: dict[tuple[str, str], Tensor] = {}

    def load(self, rows: Sequence[int]) -> Tensor:
        """(len(rows), 3, R, R) uint8; a row may come more than once."""
        if not rows:
            side = self.picture_px
            return torch.empty((0, 3, side, side), dtype=torch.uint8)
        unique = list(dict.fromkeys(rows))
        places = {row: place for place, row in enumerate(unique)}
        key: dict[str, object] = {
            "images": self.index.fingerprint,
            "sample_ids": [self.index.sample_ids[row] for row in unique],
            "resolution_px": self.picture_px,
            "pixels": "as for training",
            "code": hash_sources("clipgan.evaluation.study.real_images"),
        }

        def decode() -> Tensors:
            return {"pixels": load_reference_images(self.index, unique, self.picture_px)}

        # The few images that are shown beside generated ones are cached too.
        return self._cache.fetch(key, decode)["pixels"][[places[row] for row in rows]]

    def encode(self, rows: Sequence[int], space: FeatureSpace, transform: str = PLAIN) -> Tensor:
        """(len(rows), D) float32 features; a row may come more than once.

        Args:
            transform: ``none``, ``mirrored`` or ``blur RADIUS``.
        """
        if not rows:
            return torch.empty((0, 0))
        if transform == PLAIN and space.spec in self._whole:
            return self.encode_all(space)[list(rows)]
        unique = list(dict.fromkeys(rows))
        places = {row: place for place, row in enumerate(unique)}
        features = self._fetch(unique, space, transform)
        return features[[places[row] for row in rows]]

    def encode_all(self, space: FeatureSpace) -> Tensor:
        """(N, D) float32 features of every row, without a transform."""
        key = (space.spec, PLAIN)
        if key not in self._known:
            self._known[key] = self._fetch(range(len(self.index.sample_ids)), space, PLAIN)
        return self._known[key]

    def encode_reference(
        self, rows: Sequence[int], space: FeatureSpace, radii: Sequence[int], *, mirrored: bool
    ) -> SpaceFeatures:
        """Encode everything that a comparison in one space needs of the chosen rows."""
        plain = self.encode(rows, space)
        if mirrored:
            plain = torch.cat([plain, self.encode(rows, space, MIRRORED)])
        blurred = {radius: self.encode(rows, space, f"blur {radius}") for radius in radii}
        features = SpaceFeatures(plain, None, blurred)
        if len(plain) <= plain.shape[1]:
            return features
        transform = f"statistics of {'both' if mirrored else 'plain'}"
        return replace(features, statistics=self._fetch_statistics(rows, space, transform, plain))

    def _fetch(self, rows: Sequence[int], space: FeatureSpace, transform: str) -> Tensor:
        key = self._describe(rows, space, transform)
        tensors = self._cache.fetch(
            key, lambda: {"features": self._extract(rows, space, transform)}
        )
        return tensors["features"]

    def _fetch_statistics(
        self, rows: Sequence[int], space: FeatureSpace, transform: str, plain: Tensor
    ) -> GaussianStatistics:
        def compute() -> Tensors:
            statistics = compute_statistics(plain)
            return {"mean": statistics.mean, "covariance": statistics.covariance}

        tensors = self._cache.fetch(self._describe(rows, space, transform), compute)
        return GaussianStatistics(len(plain), tensors["mean"], tensors["covariance"])

    def _describe(
        self, rows: Sequence[int], space: FeatureSpace, transform: str
    ) -> dict[str, object]:
        return describe_features(
            images_fingerprint=self.index.fingerprint,
            sample_ids=[self.index.sample_ids[row] for row in rows],
            resolution_px=self.resolution_px,
            space=space,
            transform=transform,
            device=self._device,
        )

    def _extract(self, rows: Sequence[int], space: FeatureSpace, transform: str) -> Tensor:
        collector = FeatureCollector(space, (), batch_size=self._batch_size, device=self._device)
        change = _find_change(transform)
        title = f"real images in {space.spec}"
        with (
            open_reference_images(self.index, rows, self.resolution_px) as images,
            progress_bar(title, len(rows), "images") as bar,
        ):
            for batch in iterate_batches(images, self._batch_size):
                collector.add(change(batch))
                bar.advance(len(batch))
        return collector.collect("features of the real images").plain


def _find_change(transform: str) -> Callable[[Tensor], Tensor]:
    if transform == MIRRORED:
        return lambda images: images.flip(-1)
    if transform == PLAIN:
        return lambda images: images
    radius = int(transform.removeprefix("blur "))
    return lambda images: blur(images, radius)
