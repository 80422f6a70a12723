"""Estimates become values with a protocol, which says what was measured and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipgan.evaluation.metrics.inputs import Inputs
from clipgan.evaluation.metrics.metric import METRICS, Metric, Skip
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import MetricValue, Protocol, build_value


class Recorder:
    """Computes metrics and writes the protocol of every value.

    Args:
        fields: what the protocols of one study share; ``resize`` happens before a network's own.
        confidence: of the intervals.
        training_sha256: hash of the weights of the CLIP that the generators were trained against.
    """

    def __init__(
        self, fields: Mapping[str, Any], confidence: float, training_sha256: str = ""
    ) -> None:
        self._fields, self._confidence = fields, confidence
        self._training_sha256 = training_sha256
        self.values: dict[str, MetricValue] = {}
        self.skipped: dict[str, str] = {}

    def take(self) -> dict[str, MetricValue]:
        """Return the values since the last call."""
        values, self.values = self.values, {}
        return values

    def compute_all(self, inputs: Inputs) -> None:
        """Compute every metric that is defined for such inputs."""
        for metric in METRICS.values():
            if metric.needs is type(inputs):
                self.compute(metric, inputs)

    def compute(self, metric: Metric, inputs: Inputs) -> None:
        """Record the values of one metric, or the reason why it has none.

        Raises:
            EvaluationError: a feature is NaN, or all images are the same.
        """
        result = metric.compute(inputs)
        if result is None:
            return
        if isinstance(result, Skip):
            self.skipped[metric.name_value(inputs)] = result.reason
            return
        estimates = {"": result} if isinstance(result, Estimate) else result
        for variant, estimate in estimates.items():
            name = metric.name_value(inputs, variant)
            self.values[name] = build_value(
                estimate,
                self._describe(name, inputs, estimate),
                self._confidence,
                better=metric.better,
                value_range=metric.value_range,
            )

    def _describe(self, name: str, inputs: Inputs, estimate: Estimate) -> Protocol:
        space = inputs.space
        fields = {
            **self._fields,
            "metric": name,
            "extractor": space.extractor,
            "extractor_sha256": space.weights_sha256,
            "independent": space.weights_sha256 != self._training_sha256,
            "resize": f"{self._fields['resize']}, then {space.resize}",
            "clip": None if space.clip is None else dict(space.clip),
            "settings": dict(estimate.settings),
        }
        return Protocol(**{**fields, **inputs.changes})
