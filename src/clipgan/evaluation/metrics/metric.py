"""What a metric is, and the register of all metrics, each of which is one file beside this one.

A file names the metric, says whether lower or higher is better, in which range it lies and what it
needs, and computes it; importing the file registers it::

    @metric("kid", better="lower", value_range=UNBOUNDED, needs=SpaceInputs)
    def compute_kid(inputs: SpaceInputs) -> Found: ...

Nothing else is needed: the driver computes the metric wherever its inputs exist, and its values
appear in every table, in MLflow and in ``dvc metrics show``, and may decide a promotion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from clipgan.evaluation.metrics.inputs import ImageInputs, Inputs
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import Better, Range

UNBOUNDED: Range = (-math.inf, math.inf)
POSITIVE: Range = (0.0, math.inf)


@dataclass(frozen=True)
class Skip:
    """Why a metric is not computed."""

    reason: str


Found = Estimate | Mapping[str, Estimate] | Skip | None
"""One value, or several by the end of their names (``fd_blur2``), or the reason why there is none;
None where the metric is not defined for these inputs."""
I = TypeVar("I", bound=Inputs)  # noqa: E741
FindNetwork = Callable[[Sequence[str], torch.device], FeatureSpace | Skip]
"""Captions of the images -> the network that extracts the features, or why it is not available."""


@dataclass(frozen=True)
class Metric:
    """One metric; see :func:`metric`."""

    name: str
    better: Better
    value_range: Range
    needs: type[Inputs]
    compute: Callable[[Any], Found]
    names_space: bool
    find_network: FindNetwork | None

    def name_value(self, inputs: Inputs, variant: str = "") -> str:
        """Name its value for these inputs."""
        kind = self.name + variant
        return inputs.name_value(kind) if self.names_space else kind


METRICS: dict[str, Metric] = {}
"""Every metric by its name, in the order of the tables."""


def metric(
    name: str,
    *,
    better: Better,
    value_range: Range,
    needs: type[I],
    names_space: bool = True,
    find_network: FindNetwork | None = None,
) -> Callable[[Callable[[I], Found]], Callable[[I], Found]]:
    """Register the function below as a metric.

    Args:
        name: as in tables; the feature space's name follows it.
        value_range: smallest and largest value; a share (0 to 1) has Wilson's interval.
        needs: what it is computed from, one of :mod:`clipgan.evaluation.metrics.inputs`.
        names_space: whether the names of its values include the space's name.
        find_network: loads the feature extractor of a metric of :class:`ImageInputs`.
    """
    assert (find_network is not None) == (needs is ImageInputs), name

    def register(compute: Callable[[I], Found]) -> Callable[[I], Found]:
        assert name not in METRICS, f"two metrics are called {name}"
        METRICS[name] = Metric(name, better, value_range, needs, compute, names_space, find_network)
        return compute

    return register
