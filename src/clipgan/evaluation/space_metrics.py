"""Every distance of one feature space between generated images and one fixed reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from clipgan.evaluation.distances import (
    check_features,
    compute_precision_recall,
    estimate_frechet_distance,
    estimate_inception_score,
    estimate_kernel_distance,
)
from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.frechet import FrechetReference, GaussianStatistics
from clipgan.evaluation.kernels import compute_cmmd
from clipgan.evaluation.manifolds import compute_overlap
from clipgan.evaluation.protocols import EvaluationProtocol
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate

FEW_SPLITS = 10


@dataclass(frozen=True)
class SpaceFeatures:
    """Features of a set of images in one space.

    Attributes:
        plain: (N, D) float32.
        logits: (N, C) of the network's classes, where it has some.
        blurred: radius in px -> (N, D).
        statistics: of ``plain``, where known.
    """

    plain: Tensor
    logits: Tensor | None = None
    blurred: Mapping[int, Tensor] | None = None
    statistics: GaussianStatistics | None = None


@dataclass(frozen=True)
class Measured:
    """One metric: the estimate, and what it was told besides the protocol."""

    estimate: Estimate
    settings: dict[str, int]


class SpaceJudge:
    """Compares generated images with one reference in one space.

    Args:
        reference: features of the real images.

    Raises:
        EvaluationError: the reference has fewer than two images, NaN, or one image only.
    """

    def __init__(
        self, space: FeatureSpace, reference: SpaceFeatures, protocol: EvaluationProtocol
    ) -> None:
        self.space, self.reference, self.protocol = space, reference, protocol
        check_features(reference.plain, "reference images")
        self._frechet = FrechetReference(reference.plain, reference.statistics)
        self._blurred = {
            radius: FrechetReference(features)
            for radius, features in (reference.blurred or {}).items()
        }

    def find_skipped(self, num_generated: int) -> dict[str, str]:
        """Metrics (by name) the two sets are too small for, with the reason."""
        fewest = min(num_generated, len(self.reference.plain))
        skipped = {}
        if fewest <= self.protocol.neighbourhood:
            for kind in ("precision", "recall", "density", "coverage"):
                skipped[kind] = (
                    f"neighbourhood = {self.protocol.neighbourhood} needs more images than the "
                    f"{fewest} of the smaller set: lower it"
                )
        return {self.space.name_metric(kind): reason for kind, reason in skipped.items()}

    def measure(self, generated: SpaceFeatures, grouping: Grouping) -> dict[str, Measured]:
        """Metric name -> value; what :meth:`find_skipped` names is left out.

        Raises:
            EvaluationError: all images are the same, or a feature is NaN.
        """
        skipped = self.find_skipped(len(generated.plain))
        kernel = estimate_kernel_distance(generated.plain, self.reference.plain, grouping)
        found = {
            "fd": self._measure_frechet(generated.plain, self._frechet, grouping),
            "kid": Measured(kernel, {}),
        }
        if self.space.name_metric("precision") not in skipped:
            found |= self._measure_overlap(generated.plain, grouping)
        if self.space.is_clip:
            cmmd = compute_cmmd(generated.plain, self.reference.plain, grouping)
            found["cmmd"] = Measured(cmmd, {})
        if generated.logits is not None and len(generated.logits) >= FEW_SPLITS:
            score = estimate_inception_score(generated.logits, grouping)
            found["inception_score"] = Measured(score, {"splits": FEW_SPLITS})
        for radius, reference in self._blurred.items():
            blurred = (generated.blurred or {})[radius]
            measured = self._measure_frechet(blurred, reference, grouping)
            found[f"fd_blur{radius}"] = Measured(measured.estimate, {"blur_radius_px": radius})
        return {self.space.name_metric(kind): measured for kind, measured in found.items()}

    def _measure_frechet(
        self, features: Tensor, reference: FrechetReference, grouping: Grouping
    ) -> Measured:
        return Measured(estimate_frechet_distance(features, reference, grouping), {})

    def _measure_overlap(self, features: Tensor, grouping: Grouping) -> dict[str, Measured]:
        neighbourhood = self.protocol.neighbourhood
        settings = {"neighbourhood": neighbourhood}
        kept = compute_precision_recall(features, self.reference.plain, neighbourhood=neighbourhood)
        overlap = compute_overlap(
            features, self.reference.plain, neighbourhood=neighbourhood, grouping=grouping
        )
        return {
            "precision": Measured(replace(overlap.precision, value=kept.precision), settings),
            "recall": Measured(replace(overlap.recall, value=kept.recall), settings),
            "density": Measured(overlap.density, settings),
            "coverage": Measured(overlap.coverage, settings),
        }
