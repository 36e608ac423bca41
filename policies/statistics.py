"""Means, deviations and Welch's t-test in plain numpy, exact where all values are equal."""

import math
from collections.abc import Sequence

import numpy as np

ROUNDING = 16 * np.finfo(np.float64).eps  # relative to the largest value; smaller differences mean nothing
MOST_TERMS = 500  # the continued fraction converges within some tens


def mean_and_variance(values: Sequence[float], freedom: int = 0) -> tuple[float, float]:
    """Return the mean and the variance; of equal values they are that value and 0, not nearly so.

    The mean of `[0.3] * 10` as numpy sums it is another number than 0.3. The variance is a sum of squares
    over their number less `freedom`.
    """
    given = np.asarray(values, dtype=np.float64)
    apart = given - given[0]
    mean = float(apart.mean())
    return float(given[0] + mean), float(((apart - mean) ** 2).sum() / (len(given) - freedom))


def welch(better: Sequence[float], worse: Sequence[float]) -> float:
    """Return the one-sided p-value of Welch's unequal-variance t-test that `better` has the higher mean.

    Both need at least two values. Two series that are constant but for rounding leave the statistic
    undefined: p is then 0 if `better` is higher by more than that and 1 if not.
    """
    (first, spread), (second, other) = mean_and_variance(better, 1), mean_and_variance(worse, 1)
    errors = spread / len(better), other / len(worse)
    rounding = ROUNDING * max(map(abs, (*better, *worse)))
    if math.sqrt(sum(errors)) <= rounding:
        return 0.0 if first - second > rounding else 1.0
    # shares of the error, since the square of a small one may be 0
    shares = [error / sum(errors) for error in errors]
    freedom = 1 / (shares[0] ** 2 / (len(better) - 1) + shares[1] ** 2 / (len(worse) - 1))
    return student_tail((first - second) / math.sqrt(sum(errors)), freedom)


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
