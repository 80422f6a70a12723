"""Power-function averages in closed form (Karras et al. 2024, arXiv 2312.02696, section 3.1).

After t images, the weights seen at time tau in [0, t] count with the density
p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1). Its standard deviation over t is ``sigma_rel``, the
relative averaging length by which such averages are named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipgan.errors import ConfigError

MAX_SIGMA = 12**-0.5
"""The standard deviation of a uniform density: gamma = 0, the plain mean over all of training."""

Floats = NDArray[np.float64]


def compute_gamma(sigma: float) -> float:
    """The exponent of the average of relative length ``sigma``, >= 0.

    It solves sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), a cubic.

    Raises:
        ConfigError: ``sigma`` is not above 0 and at most :data:`MAX_SIGMA`.
    """
    if not 0.0 < sigma <= MAX_SIGMA:
        raise ConfigError(
            f"averaging length {sigma:g}: give a share of the training above 0 and at most "
            f"{MAX_SIGMA:.3f}, the mean of all its steps"
        )
    inverse = sigma**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def compute_power_decay(images_seen: int, batch_size: int, gamma: float) -> float:
    """Share of the old average that the step ending at ``images_seen`` keeps, in [0, 1)."""
    return float((1.0 - batch_size / images_seen) ** (gamma + 1.0))


def compute_inner_products(
    gamma_a: Floats, end_a: Floats, gamma_b: Floats, end_b: Floats
) -> Floats:
    """Integrals of the products of two densities each, by the rules of broadcasting.

    Args:
        gamma_a, gamma_b: exponents, >= 0.
        end_a, end_b: the times at which the averages end, > 0.
    """
    shared = np.minimum(end_a, end_b)
    factors = (gamma_a + 1.0) * (gamma_b + 1.0) / (gamma_a + gamma_b + 1.0)
    decayed = (shared / end_a) ** (gamma_a + 1.0) * (shared / end_b) ** (gamma_b + 1.0)
    products: Floats = factors * decayed / shared
    return products


def fit_density(gammas: Floats, ends: Floats, gamma: float, end: float) -> tuple[Floats, float]:
    """Factors of stored averages whose sum comes nearest to another average (appendix C).

    Least squares between densities. The factors are then scaled to the sum 1 of an average.

    Args:
        gammas, ends: (N,) exponents and ending times of the stored averages.
        gamma, end: of the wanted one.

    Returns:
        (N,) factors, and the distance of the densities over the norm of the wanted one: 0 is exact.
    """
    gram = compute_inner_products(gammas[:, None], ends[:, None], gammas, ends)
    own = np.array([gamma]), np.array([end])
    wanted = compute_inner_products(gammas, ends, *own)
    factors: Floats = np.linalg.lstsq(gram, wanted, rcond=None)[0].astype(np.float64)
    factors /= factors.sum()
    norm = float(compute_inner_products(*own, *own)[0])
    squared = float(factors @ gram @ factors - 2.0 * factors @ wanted) + norm
    return factors, (max(0.0, squared) / norm) ** 0.5
