"""The drifting field against the paper's equations, and what its loss does to samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipgan.losses.drifting import compute_drifting_field, compute_drifting_loss

TEMPERATURES = (0.02, 0.05, 0.2)


def _draw(*shape: int, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


def _exactly(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


def _loop_over_equations(
    samples: Tensor, positives: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """The field of (G, C), (P, C) and (N, C), number by number."""
    others = [*positives, *negatives]
    kernel = [
        [math.exp(-math.dist(x.tolist(), y.tolist()) / temperature) for y in others]
        for x in samples
    ]
    rows = [sum(row) for row in kernel]
    columns = [sum(row[j] for row in kernel) for j in range(len(others))]
    field = torch.zeros_like(samples)
    for i in range(len(samples)):
        affinity = [
            math.sqrt(kernel[i][j] / rows[i] * kernel[i][j] / columns[j])
            for j in range(len(others))
        ]
        near, far = affinity[: len(positives)], affinity[len(positives) :]
        for weight, y in zip(near, positives, strict=True):
            field[i] += weight * sum(far) * y
        for weight, y in zip(far, negatives, strict=True):
            field[i] -= weight * sum(near) * y
    return field


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("itself", [False, True])
def test_the_field_is_that_of_the_equations(temperature: float, itself: bool) -> None:
    samples, positives = _draw(2, 4, 3, seed=0), _draw(2, 5, 3, seed=1)
    negatives = samples if itself else _draw(2, 6, 3, seed=2)
    found = compute_drifting_field(samples, positives, negatives, _exactly(temperature))
    for index in range(2):
        expected = _loop_over_equations(
            samples[index], positives[index], negatives[index], temperature
        )
        torch.testing.assert_close(found[index], expected, rtol=1e-9, atol=1e-12)


def test_exchanging_what_attracts_and_repels_turns_the_field_round() -> None:
    samples, real, unreal = (_draw(5, 3, seed=seed) for seed in range(3))
    one_way = compute_drifting_field(samples, real, unreal, _exactly(0.7))
    other_way = compute_drifting_field(samples, unreal, real, _exactly(0.7))
    assert one_way.abs().max() > 0.1
    torch.testing.assert_close(one_way, -other_way)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_between_equal_sets_nothing_moves(temperature: float) -> None:
    samples, real = _draw(6, 3, seed=0), _draw(4, 3, seed=1)
    for at in (samples, real):
        field = compute_drifting_field(at, real, real.flip(0), _exactly(temperature))
        torch.testing.assert_close(field, torch.zeros_like(at))


def _descend(samples: Tensor, positives: Tensor, steps: int) -> Tensor:
    """Gradient descent with steps of the same length for every number of samples."""
    for index in range(steps):
        samples = samples.detach().requires_grad_()
        loss, _ = compute_drifting_loss(samples, positives, TEMPERATURES, lambda mean: mean)
        (gradient,) = torch.autograd.grad(loss, samples)
        pace = 0.05 * (1 - index / steps) / float(gradient.square().mean().sqrt())
        samples = samples - pace * gradient
    return samples.detach()


def test_two_samples_almost_in_one_place_go_to_two_positives() -> None:
    """A distance to the nearest, or to the mean, would leave them together."""
    positives = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    together = torch.tensor([[0.01, 0.5], [-0.01, 0.5]])
    distances = torch.cdist(_descend(together, positives, 100), positives)
    assert distances.argmin(1).tolist() == [1, 0]
    assert distances.min(1).values.max() < 0.15


@pytest.mark.parametrize("count", [2, 4])
def test_few_samples_end_at_as_many_positives_and_do_not_run_past_them(count: int) -> None:
    """A field without a sample's pair with itself would drive them away for ever."""
    positives = _draw(8, count, 48, seed=0).float()
    start = 0.1 * _draw(8, count, 48, seed=1).float()
    distances = torch.cdist(_descend(start, positives, 300), positives)
    spacing = torch.cdist(positives, positives).sum() / (8 * count * (count - 1))
    assert distances.min(2).values.max() < 0.2 * spacing
    reached = [len(set(nearest)) for nearest in distances.argmin(2).tolist()]
    assert sum(reached) > 0.9 * 8 * count


def test_the_gradient_points_along_the_normalized_fields() -> None:
    samples, positives = _draw(3, 4, 5, seed=0).float(), _draw(3, 6, 5, seed=1).float()
    samples.requires_grad_()
    loss, drift = compute_drifting_loss(samples, positives, TEMPERATURES, lambda mean: mean)
    (gradient,) = torch.autograd.grad(loss, samples)

    still, itself = samples.detach(), torch.eye(4, dtype=torch.bool)
    others = torch.cdist(still, still)[:, ~itself].view(3, 4, 3)  # of a sample: three
    mean_distance = torch.cat([torch.cdist(still, positives), others], dim=-1).mean()
    scale = mean_distance / 5**0.5
    fields = [
        compute_drifting_field(still, positives, still, temperature * mean_distance) / scale
        for temperature in TEMPERATURES
    ]
    sizes = [field.square().mean().sqrt() for field in fields]
    moves = sum(field / size for field, size in zip(fields, sizes, strict=True))
    assert isinstance(moves, Tensor)
    torch.testing.assert_close(loss, moves.square().mean())
    torch.testing.assert_close(gradient, -2 * moves / scale / moves.numel())
    torch.testing.assert_close(drift, torch.stack(sizes).square().mean().sqrt())


def test_units_do_not_matter() -> None:
    samples, positives = _draw(3, 4, 5, seed=0).float(), _draw(3, 6, 5, seed=1).float()
    plain = compute_drifting_loss(samples, positives, TEMPERATURES, lambda mean: mean)
    scaled = compute_drifting_loss(100 * samples, 100 * positives, TEMPERATURES, lambda mean: mean)
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=0)


def test_samples_that_are_the_positives_stay() -> None:
    samples = _draw(3, 4, 5, seed=0).float()
    _, drift = compute_drifting_loss(samples, samples.flip(1), TEMPERATURES, lambda mean: mean)
    assert float(drift) < 1e-6


def test_samples_that_coincide_with_all_positives_give_no_nan() -> None:
    same = torch.ones(2, 3, 4, requires_grad=True)
    loss, drift = compute_drifting_loss(same, torch.ones(2, 5, 4), TEMPERATURES, lambda mean: mean)
    (gradient,) = torch.autograd.grad(loss, same)
    assert torch.isfinite(torch.stack([loss.detach(), drift])).all()
    assert torch.isfinite(gradient).all()
