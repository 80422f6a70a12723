"""Metric values that a test makes up."""

from __future__ import annotations

from torch import Tensor

import clipgan.evaluation.metrics  # noqa: F401  registers every metric
from clipgan.evaluation.metrics.inputs import Inputs, SpaceInputs
from clipgan.evaluation.spaces.extraction import SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.study.recorder import Recorder
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import SHARE, Better, MetricValue, Protocol, build_value

PROTOCOL = Protocol(
    metric="kid_efficientnet_lite0",
    extractor="efficientnet-lite0/pooled-1280",
    extractor_sha256="579",
    independent=True,
    reference_split="train",
    reference="all images",
    reference_count=1000,
    reference_fingerprint="abc",
    generated_count=1000,
    captions="one each",
    seed=0,
    resize="to 224 px",
    truncation=1.0,
    clip={"model": "small"},
    settings={"subset_size": 500},
    name="fd-offline",
)


def value_of(
    metric: str,
    number: float,
    spread: float = 0.0,
    *,
    better: Better | None = None,
    **changes: object,
) -> MetricValue:
    """A value with three subsets that lie up to ``spread`` around it; distances by their names."""
    protocol = PROTOCOL.model_copy(update={"metric": metric, **changes})
    estimate = Estimate(number, (number - spread, number + spread, number))
    lower = metric.startswith(("fd", "kid"))
    is_share = metric.startswith(("precision", "recall", "r_precision"))
    return build_value(
        estimate,
        protocol,
        0.95,
        better=better or ("lower" if lower else "higher"),
        **({"value_range": SHARE} if is_share else {}),
    )


SPACE = FeatureSpace("x", "x", "x/pooled", "0", "none", lambda images: (images, None))


def compute_values(inputs: Inputs) -> dict[str, MetricValue]:
    """Every metric of such inputs, by its name."""
    described = {"metric", "extractor", "extractor_sha256", "independent", "clip", "settings"}
    recorder = Recorder(PROTOCOL.model_dump(exclude=described), 0.95)
    recorder.compute_all(inputs)
    return recorder.take()


def space_inputs(
    generated: Tensor,
    reference: Tensor,
    grouping: Grouping | None = None,
    *,
    neighbourhood: int = 3,
) -> SpaceInputs:
    """Features that a test makes up."""
    return SpaceInputs(
        space=SPACE,
        grouping=grouping or Grouping(len(generated), 4, 0),
        generated=SpaceFeatures(generated),
        reference=SpaceFeatures(reference),
        neighbourhood=neighbourhood,
    )
