"""Welch's t-test in plain numpy."""

import math
from collections.abc import Sequence

import numpy as np

MOST_TERMS = 500  # of the continued fraction; it converges within some tens


def welch(better: Sequence[float], worse: Sequence[float]) -> float:
    """Return the one-sided p-value of Welch's unequal-variance t-test that `better` has the higher mean.

    Both need at least two values. Two constant series leave the statistic undefined: p is then 0 if
    `better` is higher and 1 if not.
    """
    first, second = np.asarray(better, dtype=np.float64), np.asarray(worse, dtype=np.float64)
    difference = float(first.mean() - second.mean())
    errors = np.array([first.var(ddof=1) / first.size, second.var(ddof=1) / second.size])
    if errors.sum() == 0:
        return 0.0 if difference > 0 else 1.0
    freedom = errors.sum() ** 2 / (errors[0] ** 2 / (first.size - 1) + errors[1] ** 2 / (second.size - 1))
    return student_tail(difference / math.sqrt(errors.sum()), float(freedom))


def student_tail(t: float, freedom: float) -> float:
    """Return P(T > t) for Student's distribution with `freedom` degrees of freedom."""
    # I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2) is P(|T| > |t|)
    both = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return both / 2 if t > 0 else 1 - both / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function by its continued fraction (Lentz, 1976)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast below this point only
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            fraction *= d * c
        if abs(fraction - before) < 1e-16 * abs(fraction):
            break
    return math.exp(log_front) * fraction / a
