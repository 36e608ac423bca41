"""A Gaussian process over time, numbers and categories: what an interval under them may gain."""

import math
from typing import NamedTuple

import numpy as np

from shoal.policies.encoding import Array, Places

JITTERS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
LEAST_NOISE = 1e-4  # variance; the labels have variance 1
SWEEPS = 2  # a fit goes through all settings of the kernel so many times

# shorter lengths would follow the noise of few rows; time is scaled to the rows' whole span, over which a
# forgetting of 0.99 leaves a correlation of 0.1
GRIDS: dict[str, tuple[float, ...]] = {
    "length": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    "forgetting": (0.0, 0.1, 0.5, 0.9, 0.99),
    "context": (0.0, 0.1, 1.0),
    "noise": (LEAST_NOISE, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.6),
    "mix": (0.0, 0.5, 1.0),
}


class Inputs(NamedTuple):
    times: Array  # (rows,) in [0, 1]
    scores: Array  # (rows,) in [0, 1]; the score of the weights that an interval began with
    numbers: Array  # (rows, numbers) in [0, 1]
    categories: Places  # (rows, categories), possibly no columns

    def taken(self, rows: Places) -> "Inputs":
        return Inputs(self.times[rows], self.scores[rows], self.numbers[rows], self.categories[rows])


class Distances(NamedTuple):
    """Between all rows of two inputs, each (rows, rows)."""

    squared: Array  # sum of the squared differences of all numbers
    ahead: Array  # squared difference of the scores
    elapsed: Array  # time between the rows, not squared
    equal: Array | None  # share of the categories that are equal; None where there are no categories


class Kernel(NamedTuple):
    length: float = 0.5  # in squared units of the scaled numbers
    context: float = 0.0  # how much the score counts beside a number, whose weight is 1
    forgetting: float = 0.1  # in [0, 1); 0 forgets nothing
    noise: float = 0.1  # variance; the labels have variance 1
    mix: float = 0.5  # 1 multiplies the parts of numbers and categories, 0 adds them


START = Kernel()  # the search for the best kernel begins here


class Process(NamedTuple):
    """A kernel conditioned on rows."""

    kernel: Kernel
    inputs: Inputs
    whitener: Array  # (rows, rows), the inverse of the covariance's lower Cholesky factor
    weights: Array  # (rows,), the inverse of the covariance times the labels


def joined(first: Inputs, second: Inputs) -> Inputs:
    return Inputs(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def distances(first: Inputs, second: Inputs) -> Distances:
    squared = np.zeros((len(first.times), len(second.times)))
    for column in range(first.numbers.shape[1]):
        squared += np.subtract.outer(first.numbers[:, column], second.numbers[:, column]) ** 2
    columns = first.categories.shape[1]
    same = np.zeros_like(squared)
    for column in range(columns):
        same += np.equal.outer(first.categories[:, column], second.categories[:, column])
    elapsed = np.abs(np.subtract.outer(first.times, second.times))
    ahead = np.subtract.outer(first.scores, second.scores) ** 2
    return Distances(squared, ahead, elapsed, same / columns if columns else None)


def covariance(kernel: Kernel, between: Distances) -> Array:
    """Time-varying squared exponential with categories mixed in (Parker-Holder et al., 2020 and 2021).

    The papers' mixture is divided by its value at equal points, so that every variance is 1.
    """
    forgotten = 0.5 * math.log1p(-kernel.forgetting) * between.elapsed
    apart = (between.squared + kernel.context * between.ahead) / kernel.length
    if between.equal is None:
        return np.exp(forgotten - apart)
    close, mix = np.exp(-apart), kernel.mix
    mixed = (1 - mix) * (between.equal + close) + mix * between.equal * close
    return mixed * np.exp(forgotten) / (2 - mix)


def condition(kernel: Kernel, inputs: Inputs, labels: Array, certain: int = 0) -> Process:
    """Condition on rows, the last `certain` of them as if they were measured without noise."""
    noisy = _noisy(kernel, distances(inputs, inputs))
    last = np.arange(len(labels) - certain, len(labels))
    noisy[last, last] += LEAST_NOISE - kernel.noise
    factor = _factor(noisy)
    whitener = np.asarray(np.linalg.inv(factor), dtype=np.float64)
    return Process(kernel, inputs, whitener, whitener.T @ (whitener @ labels))


def mean(process: Process, at: Inputs) -> Array:
    return np.asarray(covariance(process.kernel, distances(at, process.inputs)) @ process.weights)


def deviation(process: Process, at: Inputs) -> Array:
    """Return the standard deviation, without the noise, at each of the inputs; it depends on no label."""
    explained = process.whitener @ covariance(process.kernel, distances(process.inputs, at))
    return np.sqrt(np.maximum(1.0 - (explained**2).sum(axis=0), 0.0))


def evidence(kernel: Kernel, between: Distances, labels: Array) -> float:
    """Return the logarithm of the marginal likelihood of the labels."""
    factor = _factor(_noisy(kernel, between))
    white = np.linalg.solve(factor, labels)
    halves = float(np.log(np.diag(factor)).sum()) + 0.5 * len(labels) * math.log(2 * math.pi)
    return -0.5 * float(white @ white) - halves


def fit(inputs: Inputs, labels: Array) -> Kernel:
    """Return the kernel of the highest evidence that a search along one setting at a time finds."""
    between = distances(inputs, inputs)
    kernel = START
    best = evidence(kernel, between, labels)
    for _ in range(SWEEPS):
        for setting, grid in GRIDS.items():
            if setting == "mix" and between.equal is None:
                continue
            for value in grid:
                if value == getattr(kernel, setting):
                    continue
                other = kernel._replace(**{setting: value})
                known = evidence(other, between, labels)
                if known > best:
                    kernel, best = other, known
    return kernel


def _noisy(kernel: Kernel, between: Distances) -> Array:
    noisy = covariance(kernel, between)
    noisy[np.diag_indices_from(noisy)] += kernel.noise
    return noisy


def _factor(matrix: Array) -> Array:
    for jitter in JITTERS[:-1]:
        try:
            return _lower(matrix, jitter)
        except np.linalg.LinAlgError:
            continue
    return _lower(matrix, JITTERS[-1])


def _lower(matrix: Array, jitter: float) -> Array:
    return np.asarray(np.linalg.cholesky(matrix + jitter * np.eye(len(matrix))), dtype=np.float64)
