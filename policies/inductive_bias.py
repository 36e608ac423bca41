"""How much a network must be told to find what generalises (exact inductive bias: Boopathy et al., 2024)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shoal.policies.arrays import Vector

LEAST_ERRORS = 10  # fewer say nothing of a variance
FURTHEST_BELOW = 5.0  # deviations below the mean; the fitted tail is a guess beyond
DRAWS = 2000  # bootstrap draws of the interval
TERMS_BEYOND = 12.0  # terms of the series end so many deviations of a Poisson count above its mean


class Bias(NamedTuple):
    """Nats that single out the networks with at most an error, with a 95 % bootstrap interval."""

    nats: float
    low: float
    high: float


def inductive_bias(errors: Sequence[float], at: float, rng: np.random.Generator) -> Bias:
    """Return -log P(error <= at) of networks that differ by their seeds and row orders alone.

    `errors` are positive, one for each independent network that fits its training rows, such as mean squared
    errors on test rows. They are taken for a scaled chi-squared variable with their mean and variance, whose
    tail reaches where no sample came. The estimate is too high and wide for few networks, and hangs on `at`:
    compare at one `at` only, with the intervals. Raises ValueError where the errors say too little.
    """
    given = np.asarray(errors, dtype=np.float64)
    check(given, at)
    drawn = rng.choice(given, (DRAWS, len(given)))
    found = [-log_chance(row, at) for row in drawn if row.std() > 0]
    low, high = np.quantile(found, (0.025, 0.975))
    return Bias(-log_chance(given, at), float(low), float(high))


def check(errors: Vector, at: float) -> None:
    if len(errors) < LEAST_ERRORS:
        raise ValueError(f"at least {LEAST_ERRORS} errors are needed, but got {len(errors)}.")
    if not (np.isfinite(errors).all() and (errors > 0).all() and at > 0):
        raise ValueError(f"errors and `at` must be finite and above 0, but got {errors.min():.4g}, {at:.4g}.")
    mean, deviation = float(errors.mean()), float(errors.std(ddof=1))
    if not deviation > 1e-12 * mean:
        raise ValueError(f"errors must differ, but all are {mean:.4g}.")
    if at < (least := mean - FURTHEST_BELOW * deviation):
        raise ValueError(
            f"`at` must be at least {least:.4g}, {FURTHEST_BELOW:g} deviations below, got {at:.4g}."
        )


def log_chance(errors: Vector, at: float) -> float:
    """Return log P(error <= at) of the chi-squared variable, scaled, that has the errors' two moments."""
    mean, variance = float(errors.mean()), float(errors.var(ddof=1))
    # mean = freedom * scale and variance = 2 * freedom * scale^2
    freedom, scale = 2 * mean**2 / variance, variance / (2 * mean)
    return log_lower_gamma(freedom / 2, at / scale / 2)


def log_lower_gamma(a: float, x: float) -> float:
    """Return the logarithm of the regularised lower incomplete gamma function, exact far in the tail too.

    P(a, x) = x^a e^-x / Gamma(a + 1) * (1 + x / (a + 1) + x^2 / ((a + 1) (a + 2)) + ...), all terms positive.
    """
    count = int(max(x - a, 0.0) + TERMS_BEYOND * math.sqrt(a + x) + 100)
    logs = np.append(0.0, np.cumsum(math.log(x) - np.log(a + np.arange(1, count + 1))))
    most = float(logs.max())
    series = most + math.log(float(np.exp(logs - most).sum()))
    return min(a * math.log(x) - x - math.lgamma(a + 1) + series, 0.0)
