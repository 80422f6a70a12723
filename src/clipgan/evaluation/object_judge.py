"""Semantic object accuracy of a stream of generated images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.object_accuracy import (
    DETECTOR,
    ObjectDetector,
    compute_object_accuracy,
    find_detector_weights,
    name_things,
)
from clipgan.evaluation.space_metrics import Measured
from clipgan.metrics.grouping import Grouping


class ObjectJudge:
    """Looks for the things that the captions name.

    Args:
        named: (N, T) bool of :func:`name_things`, image i belongs to caption i.
    """

    def __init__(self, detector: ObjectDetector, named: Tensor) -> None:
        self._detector, self._named = detector, named
        self._present: list[Tensor] = []
        # Not a feature space, but what a protocol says of a judge is the same.
        self.space = FeatureSpace(
            spec="detector",
            slug="",
            fd_name="",
            extractor=DETECTOR,
            weights_sha256=detector.weights_sha256,
            resize="the detector's own",
            encode=lambda images: (images, None),
        )

    def add(self, images_uint8: Tensor) -> None:
        """Look at the next images."""
        self._present.append(self._detector.find_things(images_uint8))

    def measure(self, grouping: Grouping) -> dict[str, Measured]:
        """SOA-C and SOA-I of the images added since the last call."""
        found = compute_object_accuracy(self._named, torch.cat(self._present), grouping)
        self._present.clear()
        settings = {"captions_with_things": int(self._named.any(1).sum())}
        return {
            "soa_c": Measured(found.by_class, settings),
            "soa_i": Measured(found.by_image, settings),
        }


def find_object_judge(captions: Sequence[str], device: torch.device) -> ObjectJudge | str:
    """The judge, or one line that says why there is none."""
    weights = find_detector_weights()
    if isinstance(weights, str):
        return weights
    named = name_things(captions)
    if not named.any():
        return "no caption names one of COCO's 80 things"
    return ObjectJudge(ObjectDetector(weights).to(device), named)
