from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch_fidelity.metric_kid import kernel_mmd

from clipgan.evaluation.metrics.kernel_distances import (
    build_cubic_kernel,
    compute_cmmd,
    compute_discrepancy,
    gaussian_kernel,
)
from clipgan.metrics.grouping import Grouping

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(30, 6, generator=GENERATOR, dtype=torch.float64)
B = torch.randn(30, 6, generator=GENERATOR, dtype=torch.float64) + 0.3


def test_unbiased_discrepancy_is_torch_fidelitys_on_whole_sets() -> None:
    theirs = kernel_mmd(A.numpy(), B.numpy())
    found = compute_discrepancy(A, B, build_cubic_kernel(6), Grouping(30, 5, 0), unbiased=True)
    assert found.value == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_subsets_are_what_computing_each_alone_gives(
    unbiased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipgan.evaluation.metrics.kernel_distances._BLOCK", 7)
    groups, kernel = Grouping(30, 5, 0), build_cubic_kernel(6)
    found = compute_discrepancy(A, B, kernel, groups, unbiased=unbiased)
    alone = [
        compute_discrepancy(
            A[groups.labels != group], B, kernel, Grouping(24, 2, 0), unbiased=unbiased
        ).value
        for group in range(5)
    ]
    assert found.leave_out == pytest.approx(alone, rel=1e-9)


def test_cmmd_is_its_definition() -> None:
    """Jayasumana et al. 2024: unit norm, sigma 10, biased, times 1000."""

    def average(x: Tensor, y: Tensor) -> float:
        distances = (x[:, None] - y[None]).square().sum(2)
        return float(torch.exp(-distances / 200).mean())

    a, b = normalize(A, dim=1), normalize(B, dim=1)
    expected = 1000 * (average(a, a) + average(b, b) - 2 * average(a, b))
    assert compute_cmmd(A, B, Grouping(30, 5, 0)).value == pytest.approx(expected, rel=1e-9)
    assert compute_cmmd(A, 5 * A, Grouping(30, 5, 0)).value == pytest.approx(0.0, abs=1e-9)


def test_gaussian_kernel_of_an_image_with_itself_is_one() -> None:
    assert torch.allclose(gaussian_kernel(A, A).diagonal(), torch.ones(30, dtype=torch.float64))
