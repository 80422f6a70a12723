from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from clipgan.evaluation.metrics.prdc import ManifoldOverlap, compute_radii
from clipgan.evaluation.metrics.prdc import compute_overlap as compute_overlap_with_radii
from clipgan.metrics.grouping import Grouping
from tests.metric_values import compute_values, space_inputs

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = torch.randn(50, 4, generator=GENERATOR)
GENERATED = 0.6 * torch.randn(40, 4, generator=GENERATOR) + 0.9


def compute_overlap(
    generated: Tensor, reference: Tensor, *, neighbourhood: int, grouping: Grouping
) -> ManifoldOverlap:
    return compute_overlap_with_radii(
        generated,
        reference,
        neighbourhood=neighbourhood,
        grouping=grouping,
        reference_radii=compute_radii(reference, neighbourhood),
    )


@pytest.mark.parametrize("block", [2048, 9])
def test_precision_and_recall_are_torch_fidelitys(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipgan.evaluation.metrics.prdc._BLOCK", block)
    found = compute_values(space_inputs(GENERATED, REFERENCE, Grouping(40, 5, 0)))
    theirs = prc_features_to_metric(
        GENERATED, REFERENCE, prc_neighborhood=3, save_cpu_ram=True, verbose=False
    )
    assert 0.2 < theirs[KEY_METRIC_PRECISION] < 1.0
    assert 0.2 < theirs[KEY_METRIC_RECALL] < 1.0
    assert found["precision_x"].value == theirs[KEY_METRIC_PRECISION]
    assert found["recall_x"].value == theirs[KEY_METRIC_RECALL]
    assert found["recall_x"].protocol.settings == {"neighbourhood": 3}


def test_density_and_coverage_are_their_definitions() -> None:
    """Naeem et al. 2020, equations 4 and 5, written out."""
    distances = torch.cdist(REFERENCE, GENERATED)
    own = torch.cdist(REFERENCE, REFERENCE).sort(dim=1).values[:, 3]
    inside = distances <= own[:, None]
    found = compute_overlap(GENERATED, REFERENCE, neighbourhood=3, grouping=Grouping(40, 5, 0))
    assert found.density.value == pytest.approx(float(inside.sum()) / (3 * 40))
    assert found.coverage.value == pytest.approx(float(inside.any(1).double().mean()))


def test_density_is_about_one_for_the_same_distribution() -> None:
    a, b = (torch.randn(400, 3, generator=GENERATOR) for _ in range(2))
    found = compute_overlap(a, b, neighbourhood=5, grouping=Grouping(400, 20, 0))
    assert found.density.value == pytest.approx(1.0, abs=0.1)
    assert found.coverage.value > 0.9


def test_a_group_that_alone_reaches_an_image_takes_it_along() -> None:
    reference = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    generated = torch.tensor([[0.05], [0.15], [9.05], [9.15]])
    grouping = Grouping(4, 2, 0)
    grouping.labels = torch.tensor([0, 0, 1, 1])
    found = compute_overlap(generated, reference, neighbourhood=1, grouping=grouping)
    assert found.coverage.value == 1.0
    assert found.coverage.leave_out == (0.5, 0.5)
    assert found.precision.leave_out == (1.0, 1.0)


@pytest.mark.parametrize("num_groups", [2, 5, 20])
@pytest.mark.parametrize("spare", [0, 16])
def test_leave_outs_are_what_computing_each_subset_alone_gives(
    num_groups: int, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balls around generated images grow when their neighbours are left out."""
    monkeypatch.setattr("clipgan.evaluation.metrics.prdc._BLOCK", 9)
    monkeypatch.setattr("clipgan.evaluation.metrics.prdc._SPARE_NEIGHBOURS", spare)
    groups = Grouping(40, num_groups, 0)
    found = compute_overlap(GENERATED, REFERENCE, neighbourhood=3, grouping=groups)
    for group in range(num_groups):
        kept = GENERATED[groups.labels != group]
        ungrouped = Grouping(len(kept), 0, 0)
        alone = compute_overlap(kept, REFERENCE, neighbourhood=3, grouping=ungrouped)
        for kind in ("precision", "recall", "density", "coverage"):
            left = getattr(found, kind).leave_out[group]
            assert left == pytest.approx(getattr(alone, kind).value, abs=1e-6), kind


def test_recall_has_no_interval_where_a_subset_has_too_few_images() -> None:
    found = compute_overlap(GENERATED[:5], REFERENCE, neighbourhood=3, grouping=Grouping(5, 2, 0))
    assert found.recall.leave_out == ()
    assert len(found.coverage.leave_out) == 2


def test_radii_reach_the_kth_other_image() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert compute_radii(line, 2).tolist() == [3.0, 2.0, 3.0, 6.0]
