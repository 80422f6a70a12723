from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.frechet_distance import (
    FrechetReference,
    compute_distances,
)
from clipgan.evaluation.spaces.statistics import compute_statistics
from clipgan.metrics.grouping import Grouping

SHAPES = [(40, 60, 100), (300, 200, 20), (40, 150, 100), (150, 40, 100), (101, 100, 100)]
"""Images, reference images, dimensions: every combination of fewer and more than dimensions."""


def compute_distance(features: Tensor, reference: FrechetReference) -> float:
    return compute_distances(features, reference)[0]


def draw(num: int, dimensions: int, seed: int) -> Tensor:
    """Positive features with a falling spectrum, like those of a network."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(9))
    scales = torch.logspace(0, -2, dimensions)
    noise = torch.randn(num, dimensions, generator=generator) * scales
    return torch.relu(noise @ mix / dimensions**0.5 + 0.1 + 0.01 * seed)


@pytest.mark.parametrize(("num", "num_reference", "dimensions"), SHAPES)
def test_distance_is_torch_fidelitys(num: int, num_reference: int, dimensions: int) -> None:
    a, b = draw(num, dimensions, 0), draw(num_reference, dimensions, 1)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(a), fid_features_to_statistics(b), False
    )["frechet_inception_distance"]
    assert compute_distance(a, FrechetReference(b)) == pytest.approx(theirs, rel=1e-6)


def test_with_fewer_images_than_dimensions_ours_is_the_exact_one() -> None:
    """torch-fidelity sums the roots of all D eigenvalues of a product of rank n - 1: the other
    zeros come out as 1e-17, their roots as 3e-9, a thousand times."""
    a, b = draw(14, 800, 0), draw(14, 800, 1)
    statistics = [fid_features_to_statistics(features.double()) for features in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    values = np.linalg.eigvals(statistics[0]["sigma"] @ statistics[1]["sigma"])
    roots = np.sqrt(values.astype(complex)).real
    noise = np.sort(roots)[: 800 - 13].sum()
    found = compute_distance(a, FrechetReference(b))
    assert found == pytest.approx(theirs + 2 * noise, rel=1e-9)


@pytest.mark.parametrize(("num", "num_reference", "dimensions"), SHAPES)
def test_subsets_equal_the_distance_of_each_alone(
    num: int, num_reference: int, dimensions: int
) -> None:
    a, reference = draw(num, dimensions, 0), FrechetReference(draw(num_reference, dimensions, 1))
    groups = Grouping(num, 5, 0)
    whole, *left = compute_distances(a, reference, groups)
    assert whole == compute_distance(a, reference)
    alone = [compute_distance(a[groups.labels != group], reference) for group in range(5)]
    assert left == pytest.approx(alone, rel=1e-8)


@pytest.mark.parametrize(("num", "num_reference", "dimensions"), SHAPES)
def test_parts_do_not_change_the_statistics(
    num: int, num_reference: int, dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipgan.evaluation.spaces.statistics._BATCH", 7)
    a, b = draw(num, dimensions, 0), draw(num_reference, dimensions, 1)
    merged = compute_statistics(a)
    torch.testing.assert_close(merged.covariance, a.double().T.cov(), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(merged.mean, a.double().mean(0), rtol=1e-12, atol=0)
    in_parts = FrechetReference(b, compute_statistics(b))
    at_once = compute_distance(a, FrechetReference(b))
    assert compute_distance(a, in_parts) == pytest.approx(at_once, rel=1e-6)


def test_known_statistics_change_nothing() -> None:
    a, b = draw(300, 20, 0), draw(200, 20, 1)
    plain = compute_distance(a, FrechetReference(b))
    known = FrechetReference(b, compute_statistics(b))
    assert compute_distance(a, known) == pytest.approx(plain, rel=1e-12)


def test_dimensions_that_never_vary_are_no_trouble() -> None:
    a, b = draw(300, 20, 0), draw(200, 20, 1)
    a[:, 3], b[:, 3], b[:, 7] = 2.0, 1.0, 0.5
    kept = [column for column in range(20) if column not in (3, 7)]
    reference = FrechetReference(b[:, kept])
    expected = compute_distance(a[:, kept], reference) + 1.0
    variance = float(a[:, 7].double().var() + (a[:, 7].double().mean() - 0.5).square())
    found = compute_distance(a, FrechetReference(b))
    assert found == pytest.approx(expected + variance, rel=1e-4)


def test_a_shift_of_one_set_adds_its_square() -> None:
    a = draw(60, 10, 0)
    shift = torch.arange(10) / 10.0
    assert compute_distance(a + shift, FrechetReference(a)) == pytest.approx(
        float(shift.square().sum()), rel=1e-5
    )


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(EvaluationError, match="1 images; a covariance needs"):
        compute_statistics(torch.ones(1, 4))
