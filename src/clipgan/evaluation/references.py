"""The real side of a benchmark: features of real images in every space, from the cache if there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.evaluation.benchmark import Benchmark
from clipgan.evaluation.feature_spaces import (
    FeatureSpace,
    TrainingClip,
    check_names_differ,
    find_space,
    name_metric_of,
)
from clipgan.evaluation.real_images import RealImages
from clipgan.evaluation.reference import ReferenceIndex
from clipgan.evaluation.reference_cache import FeatureCache
from clipgan.evaluation.space_metrics import SpaceJudge


class RealSide:
    """Feature spaces with their references, and the real images behind them.

    Attributes:
        judges: one a space of the protocol whose weights are here; the first is the one that
            concept accuracy, memorisation, diversity and path length use.
        skipped: metric -> why it cannot be measured.
        warnings: what to know before reading the values.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        benchmark: Benchmark,
        clip: TrainingClip,
        cache: FeatureCache,
        device: torch.device,
    ) -> None:
        self._config, self._benchmark = config, benchmark
        self._cache, self._device = cache, device
        self.skipped: dict[str, str] = {}
        spaces = self._find_spaces(clip)
        self._images = {
            index.split: self._open(index, spaces)
            for index in (benchmark.reference, benchmark.captions, benchmark.training)
            if index is not None
        }
        self.judges = [self._judge(space) for space in spaces]
        for judge in self.judges:
            self.skipped |= judge.find_skipped(len(benchmark.choice.conditions))
        self.warnings = tuple(filter(None, map(self._warn, self.judges)))

    @property
    def main_space(self) -> FeatureSpace | None:
        """The space of the first judge; None where no space could be had."""
        return self.judges[0].space if self.judges else None

    def encode_captions(self, rows: Sequence[int], space: FeatureSpace) -> Tensor:
        """Features of rows of the captions' split."""
        return self._images[self._benchmark.captions.split].encode(rows, space)

    def encode_training(self, space: FeatureSpace) -> Tensor:
        """Features of every training image."""
        training = self._benchmark.training
        assert training is not None
        return self._images[training.split].encode_all(space)

    def load_training(self, rows: Sequence[int]) -> Tensor:
        """(len(rows), 3, R, R) uint8 training images of the generator's size."""
        training = self._benchmark.training
        assert training is not None
        return self._images[training.split].load(rows)

    def _find_spaces(self, clip: TrainingClip) -> list[FeatureSpace]:
        spaces = []
        check_names_differ(self._benchmark.protocol.spaces)
        for spec in self._benchmark.protocol.spaces:
            found = find_space(spec, self._device, clip)
            if isinstance(found, str):
                self.skipped[name_metric_of(spec)] = found
            else:
                spaces.append(found)
        return spaces

    def _open(self, index: ReferenceIndex, spaces: Sequence[FeatureSpace]) -> RealImages:
        training = self._benchmark.training
        searched = training is not None and index.split == training.split and spaces
        return RealImages(
            index,
            self._benchmark.reference_px,
            self._cache,
            picture_px=self._benchmark.resolution_px,
            batch_size=self._config.batch_size,
            device=self._device,
            whole=[spaces[0].spec] if searched else (),
        )

    def _judge(self, space: FeatureSpace) -> SpaceJudge:
        protocol = self._benchmark.protocol
        reference = self._images[self._benchmark.reference.split].encode_reference(
            self._benchmark.choice.image_rows,
            space,
            protocol.blur_radii_px,
            mirrored=protocol.is_mirrored,
        )
        return SpaceJudge(space, reference, protocol)

    def _warn(self, judge: SpaceJudge) -> str | None:
        plain = judge.reference.plain
        fewest = min(len(self._benchmark.choice.conditions), len(plain))
        if fewest > plain.shape[1]:
            return None
        fd, kid = judge.space.name_metric("fd"), judge.space.name_metric("kid")
        return (
            f"{fd} is fitted to {fewest:,} images in {plain.shape[1]:,} dimensions and therefore "
            f"biased upwards: compare it only at the same counts, and trust {kid}, which is "
            "unbiased"
        )
