"""Estimates -> values with their protocol: who judged what, on how many images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clipgan.evaluation.benchmark import Benchmark
from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.reference import CAPTION_CHOICE, NO_CAPTIONS_CHOICE
from clipgan.evaluation.space_metrics import Measured
from clipgan.metrics.values import _LOWER_BEFORE, SHARE, MetricValue, Protocol, build_value

REFERENCE_TEXTS = {
    "captioned": "random images of the split, those whose captions are used where they have some",
    "whole": "all images of the split",
}


class Recorder:
    """Writes the protocol of every value of one benchmark.

    Args:
        confidence: of the intervals.
        training_sha256: of the CLIP's weights that the generators were trained against.
    """

    def __init__(self, benchmark: Benchmark, confidence: float, training_sha256: str) -> None:
        self._benchmark, self._confidence = benchmark, confidence
        self._training_sha256 = training_sha256

    def record(
        self, measured: Mapping[str, Measured], space: FeatureSpace, **changes: Any
    ) -> dict[str, MetricValue]:
        """Values by name, judged in ``space``; ``changes`` replace fields of the protocol."""
        return {
            name: build_value(
                found.estimate,
                self._describe(name, space, found.settings, changes),
                self._confidence,
                **find_kind(name),
            )
            for name, found in measured.items()
        }

    def _describe(
        self, name: str, space: FeatureSpace, settings: dict[str, int], changes: Mapping[str, Any]
    ) -> Protocol:
        benchmark, protocol = self._benchmark, self._benchmark.protocol
        choice = benchmark.choice
        mirrored = protocol.is_mirrored
        fields: dict[str, Any] = {
            "metric": name,
            "extractor": space.extractor,
            "extractor_sha256": space.weights_sha256,
            "independent": space.weights_sha256 != self._training_sha256,
            "reference_split": benchmark.reference.split,
            "reference": REFERENCE_TEXTS[protocol.reference] + (", mirrored too" * mirrored),
            "reference_count": len(choice.image_rows) * (1 + mirrored),
            "reference_fingerprint": benchmark.reference.fingerprint,
            "generated_count": len(choice.conditions),
            "captions": _describe_captions(benchmark),
            "seed": protocol.seed,
            "resize": f"{benchmark.resize}, then {space.resize}",
            "truncation": protocol.truncation,
            "clip": None if space.clip is None else dict(space.clip),
            "settings": settings,
            "name": protocol.name,
        }
        return Protocol(**{**fields, **changes})


def find_kind(name: str) -> Any:
    """Direction and range by the metric's name."""
    shares = ("precision", "recall", "coverage", "r_precision", "concept_accuracy", "soa_")
    is_share = name.startswith((*shares, "memorised_share"))
    better = "lower" if name.startswith(_LOWER_BEFORE) else "higher"
    return {"better": better, "value_range": SHARE if is_share else (-math.inf, math.inf)}


def _describe_captions(benchmark: Benchmark) -> str:
    if not benchmark.choice.has_captions:
        return NO_CAPTIONS_CHOICE
    return f"{CAPTION_CHOICE}, split {benchmark.captions.split}"
