"""What a metric is, and the register of all: one file each beside this one, registered by import.

A file says how the metric is called, which way is better, between which numbers it lies, what it
needs, and computes it::

    @metric("kid", better="lower", value_range=UNBOUNDED, needs=SpaceInputs)
    def compute_kid(inputs: SpaceInputs) -> Found: ...

Everything else follows from that: the driver computes it wherever its inputs are there, and its
values stand in every table, in MLflow, in ``dvc metrics show``, and may decide at the gate.
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
"""One number; several by the end of their names (``fd_blur2``); why there is none; None: the metric
is not meant for these inputs."""
I = TypeVar("I", bound=Inputs)  # noqa: E741
FindNetwork = Callable[[Sequence[str], torch.device], FeatureSpace | Skip]
"""Captions of the images -> what looks at each image, or why nothing can."""


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
        """How its value of these inputs is called."""
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
        name: as in tables; the feature space's name follows.
        value_range: smallest and largest number; a share (0 to 1) has Wilson's interval.
        needs: what it is computed from, one of :mod:`clipgan.evaluation.metrics.inputs`.
        names_space: False: its values do not carry the space's name.
        find_network: what looks at each image, for a metric of :class:`ImageInputs`.
    """
    assert (find_network is not None) == (needs is ImageInputs), name

    def register(compute: Callable[[I], Found]) -> Callable[[I], Found]:
        assert name not in METRICS, f"two metrics are called {name}"
        METRICS[name] = Metric(name, better, value_range, needs, compute, names_space, find_network)
        return compute

    return register
