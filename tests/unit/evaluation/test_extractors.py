from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.spaces.extraction import FeatureCollector
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace, find_space
from tests.metric_values import compute_values, space_inputs
from tests.unit.evaluation.fidelity import find_tolerances, measure_by_fidelity
from tests.unit.evaluation.tensor_images import TensorImages

CPU = torch.device("cpu")
NUM_IMAGES = 12


def draw_images(seed: int) -> Tensor:
    """Blobs of colour: (12, 3, 32, 32) uint8."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(NUM_IMAGES, 3, 4, 4, generator=generator)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear")
    return (large * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def space() -> FeatureSpace:
    found = find_space("efficientnet-lite0", CPU, None)
    assert isinstance(found, FeatureSpace)
    return found


def extract(images: Tensor, space: FeatureSpace, batch_size: int) -> Tensor:
    collector = FeatureCollector(space, (), batch_size=batch_size, device=CPU)
    collector.add(images)
    return collector.collect("features").plain


def test_values_are_torch_fidelitys_on_the_same_images(space: FeatureSpace) -> None:
    images = [draw_images(0), draw_images(1)]
    by_hand = measure_by_fidelity(*(TensorImages(own) for own in images), NUM_IMAGES)
    generated, reference = (extract(own, space, 5) for own in images)
    tolerances = find_tolerances(generated, reference)
    found = compute_values(space_inputs(generated, reference, neighbourhood=2))
    for name, key in (
        ("fd", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
    ):
        assert found[f"{name}_x"].value == pytest.approx(by_hand[key], abs=tolerances[name])
    assert found["precision_x"].value == by_hand["precision"]
    assert found["recall_x"].value == by_hand["recall"]


def test_features_are_finite_different_and_in_the_images_order(
    space: FeatureSpace,
) -> None:
    images = draw_images(0)[:6]
    features = extract(images, space, 4)
    assert features.shape == (6, 1280)
    assert features.dtype == torch.float32
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(extract(images[order], space, 3), features[order])
    assert (torch.pdist(features) > 0.1).all()


def test_nan_of_the_network_is_refused(space: FeatureSpace) -> None:
    broken = replace(
        space, encode=lambda images: (torch.full((len(images), 4), float("nan")), None)
    )
    with pytest.raises(EvaluationError, match="NaN or infinity in 12 of 12"):
        extract(draw_images(0), broken, 5)
