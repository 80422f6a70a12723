from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.distances import (
    compute_frechet_distance,
    compute_precision_recall,
    estimate_kernel_distance,
)
from clipgan.evaluation.extractors import (
    EfficientNetLite0Extractor,
    build_judge,
    extract_features,
    register_judge,
)
from clipgan.metrics.grouping import Grouping
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
def judge() -> EfficientNetLite0Extractor:
    return build_judge(CPU)


def test_values_are_torch_fidelitys_on_the_same_images(judge: EfficientNetLite0Extractor) -> None:
    images = [draw_images(0), draw_images(1)]
    by_hand = measure_by_fidelity(*(TensorImages(own) for own in images), NUM_IMAGES)
    generated, reference = (extract_features(i, judge, batch_size=5, device=CPU) for i in images)
    kid = estimate_kernel_distance(generated, reference, Grouping(NUM_IMAGES, 4, 0))
    tolerances = find_tolerances(generated, reference)
    found = compute_precision_recall(generated, reference, neighbourhood=2)
    assert compute_frechet_distance(generated, reference) == pytest.approx(
        by_hand["frechet_inception_distance"], abs=tolerances["fd"]
    )
    expected = by_hand["kernel_inception_distance_mean"]
    assert kid.value == pytest.approx(expected, abs=tolerances["kid"])
    assert found.precision == by_hand["precision"]
    assert found.recall == by_hand["recall"]


def test_features_are_finite_different_and_in_the_images_order(
    judge: EfficientNetLite0Extractor,
) -> None:
    images = draw_images(0)[:6]
    seen: list[int] = []
    features = extract_features(images, judge, batch_size=4, device=CPU, advance=seen.append)
    assert features.shape == (6, 1280)
    assert features.dtype == torch.float32
    assert seen == [4, 2]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        extract_features(images[order], judge, batch_size=3, device=CPU), features[order]
    )
    assert (torch.pdist(features) > 0.1).all()


def test_registering_twice_does_nothing() -> None:
    register_judge()
    register_judge()


def test_nan_of_the_network_is_refused(judge: EfficientNetLite0Extractor) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (torch.full((len(images), 4), float("nan")),)

    with pytest.raises(EvaluationError, match="NaN or infinity in 12 of 12"):
        extract_features(draw_images(0), Broken(), batch_size=5, device=CPU)
