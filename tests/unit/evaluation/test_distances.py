from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    isc_features_to_metric,
)

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inception_score import estimate_inception_score
from clipgan.evaluation.metrics.kernel_distances import compute_kid
from clipgan.evaluation.spaces.checks import check_features
from clipgan.metrics.grouping import Grouping
from tests.metric_values import compute_values, space_inputs


def compute_fd(generated: Tensor, reference: Tensor) -> float:
    return compute_values(space_inputs(generated, reference))["fd_x"].value


def sample_gaussian(mean: Tensor, deviations: Tensor, num: int, seed: int) -> Tensor:
    """Features whose sample mean and covariance are exactly ``mean`` and diag(deviations^2)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, len(mean), generator=generator, dtype=torch.float64)
    noise -= noise.mean(dim=0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T
    features: Tensor = (white * deviations + mean).float()
    return features


def test_frechet_distance_equals_the_closed_form_of_gaussians() -> None:
    mean_a, mean_b = torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([1.0, 1.0, 0.5, 3.0])
    deviations_a = torch.tensor([1.0, 0.5, 2.0, 0.1])
    deviations_b = torch.tensor([2.0, 0.5, 1.0, 0.4])
    closed_form = ((mean_a - mean_b) ** 2 + (deviations_a - deviations_b) ** 2).sum().item()
    found = compute_fd(
        sample_gaussian(mean_a.double(), deviations_a.double(), 200, 0),
        sample_gaussian(mean_b.double(), deviations_b.double(), 300, 1),
    )
    assert found == pytest.approx(closed_form, rel=1e-5)


def test_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert compute_fd(features, features) == pytest.approx(0.0, abs=1e-4)


def test_kernel_distance_equals_the_unbiased_estimator() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(12, 5, generator=generator)
    b = torch.randn(12, 5, generator=generator) + 1.0

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() @ y.double().T / 5 + 1) ** 3

    num = len(a)
    within = sum((kernel(x, x).sum() - kernel(x, x).trace()) / (num * (num - 1)) for x in (a, b))
    expected = float(within - 2 * kernel(a, b).mean())
    found = compute_kid(space_inputs(a, b))
    assert found.value == pytest.approx(expected, abs=1e-12 * float(kernel(a, b).abs().mean()))


def test_kernel_distance_takes_every_image_into_account() -> None:
    """The groups only make the interval; subsets of torch-fidelity's would change the value."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 5, generator=generator), torch.randn(60, 5, generator=generator)
    first, second = (compute_kid(space_inputs(a, b, Grouping(40, 4, seed))) for seed in (0, 1))
    assert first.value == pytest.approx(second.value, abs=1e-12)
    assert first.leave_out != second.leave_out


def test_precision_and_recall_tell_quality_from_variety() -> None:
    # Real: two clusters. Generated: one of them, and as many images far from both.
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    reference = torch.cat([grid, grid + 100.0])

    def measure(generated: Tensor) -> list[float]:
        found = compute_values(space_inputs(generated, reference, neighbourhood=1))
        return [found[f"{name}_x"].value for name in ("precision", "recall")]

    assert measure(torch.cat([grid, grid - 1e4])) == [0.5, 0.5]
    assert measure(grid) == [1.0, 0.5]


def test_images_that_differ_by_rounding_alone_are_refused() -> None:
    """Processors sum the rows of a batch of another size in another order."""
    features = torch.rand(10, 4, generator=torch.Generator().manual_seed(0))
    rounded = features[:1] * (1 + 1e-6 * torch.arange(10)[:, None])
    assert not torch.equal(rounded[0], rounded[9])
    for same in (features[:1].expand(10, 4), rounded):
        with pytest.raises(EvaluationError, match="generated images: all 10 images look the same"):
            compute_fd(same, features)
        with pytest.raises(EvaluationError, match="reference images: all 10"):
            check_features(same, "reference images")
    check_features(features[:1] * (1 + 1e-3 * torch.arange(10)[:, None]), "other images")


def test_nan_is_refused_with_the_image_it_came_from() -> None:
    features = torch.randn(10, 4)
    features[7, 2] = float("nan")
    with pytest.raises(EvaluationError, match=r"NaN or infinity in 1 of 10 \(first: 7\)"):
        compute_fd(features, torch.randn(10, 4))


def test_too_few_images_are_refused_with_the_parameter_to_change() -> None:
    few, many = torch.randn(5, 4), torch.randn(20, 4)
    with pytest.raises(EvaluationError, match="generated images: 1 images; at least 2"):
        compute_fd(few[:1], many)
    with pytest.raises(EvaluationError, match="generated images: 1 images; at least 2"):
        compute_kid(space_inputs(few[:1], many))
    values = compute_values(space_inputs(many, few, neighbourhood=5))
    assert set(values) == {"fd_x", "kid_x"}


def test_inception_score_of_certain_and_even_classes_is_their_number() -> None:
    logits = torch.eye(5).repeat(40, 1) * 100.0
    found = estimate_inception_score(logits, Grouping(200, 10, 0))
    # Uneven splits fall a little short of 5.
    assert 4.5 < found.value <= 5.0
    assert len(found.leave_out) == 10
    assert estimate_inception_score(torch.ones(200, 5), Grouping(200, 10, 0)).value == 1.0
    with pytest.raises(EvaluationError, match="10 splits, there are 9 images"):
        estimate_inception_score(logits[:9], Grouping(9, 2, 0))


def test_inception_score_without_a_group_keeps_every_image_in_its_split() -> None:
    logits = 3 * torch.randn(57, 7, generator=torch.Generator().manual_seed(0))
    grouping = Grouping(57, 5, 0)
    found = estimate_inception_score(logits, grouping)
    order = np.random.RandomState(2020).permutation(57)
    for group, left in enumerate(found.leave_out):
        scores = []
        for split in range(10):
            rows = order[split * 57 // 10 : (split + 1) * 57 // 10]
            kept = logits[rows][grouping.labels[rows] != group]
            scores.append(isc_features_to_metric(kept, splits=1)[KEY_METRIC_ISC_MEAN])
        assert left == pytest.approx(sum(scores) / 10, rel=1e-9)
    everything = isc_features_to_metric(logits)[KEY_METRIC_ISC_MEAN]
    assert found.value == pytest.approx(everything, rel=1e-12)
    few = estimate_inception_score(logits[:12], Grouping(12, 6, 0))
    assert few.leave_out == (), "a split of one image would be empty"
