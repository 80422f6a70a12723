"""Power-function averages: closed forms against quadrature, reconstruction against tracking."""

from __future__ import annotations

import numpy as np
import pytest

from clipgan.errors import ConfigError
from clipgan.training.power_functions import (
    MAX_SIGMA,
    compute_gamma,
    compute_inner_products,
    compute_power_decay,
    fit_density,
)

SIGMAS = (0.02, 0.05, 0.1, 0.2, MAX_SIGMA)
CELLS = 200_000


def density(times: np.ndarray, gamma: float, end: float) -> np.ndarray:
    values = (gamma + 1) * times**gamma / end ** (gamma + 1)
    return np.where(times <= end, values, 0.0)


def midpoints(start: float, end: float) -> np.ndarray:
    return start + (np.arange(CELLS) + 0.5) * (end - start) / CELLS


def integrate(values: np.ndarray, times: np.ndarray) -> float:
    """The midpoint rule."""
    return float(values.sum() * (times[1] - times[0]))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_sigma_is_the_standard_deviation_of_the_density(sigma: float) -> None:
    gamma = compute_gamma(sigma)
    times = midpoints(0.0, 1.0)
    weights = density(times, gamma, 1.0)
    mean = integrate(weights * times, times)
    assert integrate(weights, times) == pytest.approx(1.0, rel=1e-6)
    variance = integrate(weights * (times - mean) ** 2, times)
    assert variance**0.5 == pytest.approx(sigma, rel=1e-5)
    assert variance == pytest.approx((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)), rel=1e-5)


def test_known_exponents_are_found() -> None:
    """The paper's two lengths, and the plain mean."""
    assert compute_gamma(0.05) == pytest.approx(16.97, abs=0.005)
    assert compute_gamma(0.10) == pytest.approx(6.94, abs=0.005)
    assert compute_gamma(MAX_SIGMA) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.0, -0.1, 0.3, float("nan")])
def test_lengths_that_no_power_function_has_are_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match=r"averaging length .*: give a share .* at most 0\.289"):
        compute_gamma(sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_each_step_weighs_what_the_density_holds_of_it(sigma: float) -> None:
    """The recursion over unit vectors, against quadrature over the images of each step."""
    gamma, batch_size, steps = compute_gamma(sigma), 8, 40
    average = np.full(steps, 99.0)  # what was there before does not count
    for step in range(steps):
        decay = compute_power_decay((step + 1) * batch_size, batch_size, gamma)
        average = np.eye(steps)[step] + decay * (average - np.eye(steps)[step])
    end = steps * batch_size
    for step, weight in enumerate(average):
        times = midpoints(step * batch_size, (step + 1) * batch_size)
        assert weight == pytest.approx(
            integrate(density(times, gamma, end), times), rel=1e-6, abs=1e-12
        )


@pytest.mark.parametrize(("end_a", "end_b"), [(100.0, 100.0), (60.0, 100.0), (100.0, 35.0)])
@pytest.mark.parametrize("sigma_a", SIGMAS)
@pytest.mark.parametrize("sigma_b", [0.05, 0.1])
def test_inner_products_are_integrals(
    sigma_a: float, sigma_b: float, end_a: float, end_b: float
) -> None:
    a, b = compute_gamma(sigma_a), compute_gamma(sigma_b)
    times = midpoints(0.0, min(end_a, end_b))
    expected = integrate(density(times, a, end_a) * density(times, b, end_b), times)
    found = compute_inner_products(*map(np.float64, (a, end_a, b, end_b)))
    assert found == pytest.approx(expected, rel=1e-6)


def track(path: np.ndarray, sigma: float) -> np.ndarray:
    """The average (steps, values) of ``path`` (steps, values) after every step."""
    gamma, averages = compute_gamma(sigma), []
    for step, weights in enumerate(path):
        decay = compute_power_decay(step + 1, 1, gamma)
        averages.append(weights if not averages else weights + decay * (averages[-1] - weights))
    return np.stack(averages)


@pytest.mark.parametrize(
    ("sigma", "error"), [(0.03, 0.02), (0.05, 1e-6), (0.07, 0.002), (0.15, 0.004), (0.2, 0.01)]
)
def test_any_length_comes_out_of_snapshots_of_two(sigma: float, error: float) -> None:
    """32 snapshots of .05 and .10 against an average that was tracked with that length.

    The weights are random walks: they hold all frequencies, as the weights of a training do. The
    error is over the distance that the length moves the average: from the weights themselves.
    """
    steps, num_snapshots = 3200, 32
    path = np.cumsum(np.random.default_rng(0).standard_normal((steps, 2000)), axis=0)
    ends = np.arange(1, num_snapshots + 1) * steps // num_snapshots
    stored = [track(path, kept)[ends - 1] for kept in (0.05, 0.1)]
    gammas = np.repeat([compute_gamma(0.05), compute_gamma(0.1)], num_snapshots)
    factors, estimate = fit_density(
        gammas, np.tile(ends.astype(float), 2), compute_gamma(sigma), float(steps)
    )
    assert factors.sum() == pytest.approx(1.0)
    wanted = track(path, sigma)[-1]
    found = factors @ np.concatenate(stored)
    gap = np.linalg.norm(found - wanted) / np.linalg.norm(path[-1] - wanted)
    assert gap < error
    assert estimate < 0.012


def test_the_error_of_a_length_is_told() -> None:
    """The closed form against quadrature, where few snapshots leave much of it."""
    gammas, ends = np.array([16.97, 6.94, 16.97, 6.94]), np.array([50.0, 50.0, 100.0, 100.0])
    gamma = compute_gamma(0.2)
    factors, error = fit_density(gammas, ends, gamma, 100.0)
    times = midpoints(0.0, 100.0)
    fitted = sum(
        f * density(times, g, end) for f, g, end in zip(factors, gammas, ends, strict=True)
    )
    wanted = density(times, gamma, 100.0)
    expected = integrate((fitted - wanted) ** 2, times) / integrate(wanted**2, times)
    assert error == pytest.approx(expected**0.5, rel=1e-3)
    assert error > 0.05


@pytest.mark.parametrize("sigma", [0.03, 0.07, 0.15, 0.2])
def test_two_averages_tell_more_than_twice_as_many_snapshots_of_one(sigma: float) -> None:
    errors = []
    for kept, count in (((0.05, 0.1), 32), ((0.05,), 64), ((0.1,), 64)):
        ends = np.repeat(np.arange(1.0, count + 1), len(kept))
        gammas = np.tile([compute_gamma(one) for one in kept], count)
        errors.append(fit_density(gammas, ends, compute_gamma(sigma), float(count))[1])
    assert errors[0] < 0.3 * min(errors[1:])
