"""PB2: a clone's hyperparameters by Bayesian optimisation of what the next interval may gain."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from shoal.policies import gaussian
from shoal.policies.encoding import Array, Coding, Places, Points, coding, decode_point, encode_points, snapped
from shoal.policies.explore import Interval, Past, Perturb
from shoal.policies.gaussian import Inputs
from shoal.policies.region import LARGEST, SMALLEST, half_length
from shoal.policies.space import Hyperparameters, Space
from shoal.policies.statistics import ROUNDING

FEWEST_INTERVALS = 4  # with fewer there is nothing to learn from
FITTED = 100  # rows; the kernel is fitted to the newest ones alone, since the time goes with their cube
CANDIDATES = 512  # points drawn all over the box
NEIGHBOURS = 64  # points drawn in each search around one point
RADII = (0.2, 0.1, 0.03, 0.01)  # shares of the box; one search around the best so far for each
# 0.2 log(0.4 rows) goes to 0 for few rows; but then the uncertainty is most of what is known
LEAST_BETA = 0.2


@dataclass(frozen=True)
class Bayesian:
    """PB2 (Parker-Holder et al., 2020), PB2-Mix where there are categories (Parker-Holder et al., 2021).

    With a `region` a clone stays within that half-length of its donor, as a share of each domain, and
    changes one category at most; the length follows its success in the intervals that are kept, and gains
    are ranked (Wan et al., 2022).
    """

    window: int = 200  # intervals; the rule learns from the newest ones
    memory: int = 50  # intervals kept for each member
    region: float | None = None

    def __post_init__(self) -> None:
        if self.window < FEWEST_INTERVALS:
            raise ValueError(f"window must be at least {FEWEST_INTERVALS} intervals, but got {self.window}.")
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1 interval, but got {self.memory}.")
        if self.region is not None and not SMALLEST <= self.region <= LARGEST:
            raise ValueError(f"region must be in [{SMALLEST}, {LARGEST}], but got {self.region}.")

    def propose(
        self, space: Space, donor: Hyperparameters, past: Past, rng: np.random.Generator
    ) -> Hyperparameters:
        finite = [row for row in past.intervals if math.isfinite(row.gain)]
        finite.sort(key=lambda row: row.begun)
        rows = [finite[place] for place in newest_rows(finite, self.window, rng)]
        code = coding(space)
        if len(rows) < FEWEST_INTERVALS or not (code.numbers or code.categories):
            return Perturb().propose(space, donor, past, rng)
        gains = np.array([row.gain for row in rows])
        labels = standardised(gains) if self.region is None else copula(gains)
        reach = math.inf if self.region is None else half_length(past.intervals, self.region)
        worth = acquisition(code, rows, labels, past, newest_rows(rows, FITTED, rng))
        best = maximised(worth, code, encode_points(code, [donor]), reach, rng)
        return decode_point(code, best, 0, donor)


def newest_rows(rows: list[Interval], most: int, rng: np.random.Generator) -> Places:
    """Return the places of the newest of rows that are sorted by when they began.

    Those that began at one step are in the order of members: where not all of them are kept it is a draw, since
    a plain cut would leave out those of low numbers.
    """
    begun = np.array([row.begun for row in rows])
    if len(rows) <= most:
        return np.arange(len(rows))
    newer, oldest = np.flatnonzero(begun > begun[-most]), np.flatnonzero(begun == begun[-most])
    missing = most - len(newer)
    if missing < len(oldest):
        oldest = np.sort(rng.choice(oldest, missing, replace=False))
    return np.concatenate([oldest, newer])


def standardised(gains: Array) -> Array:
    """Return gains with mean 0 and deviation 1, cut at two deviations."""
    scale = gains.std()
    if scale <= 1e-12 * np.abs(gains).max():  # equal gains differ by rounding
        return np.zeros_like(gains)
    return np.clip((gains - gains.mean()) / scale, -2.0, 2.0)


def copula(gains: Array) -> Array:
    """Return the normal quantiles of the gains' ranks; equal gains share their mean rank."""
    below = (gains[:, None] > gains).sum(axis=1)
    ties = (gains[:, None] == gains).sum(axis=1)
    ranks = below + (ties + 1) / 2  # from 1
    return np.array([NormalDist().inv_cdf(rank / (len(gains) + 1)) for rank in ranks])


def acquisition(
    code: Coding, rows: list[Interval], labels: Array, past: Past, fitted: Places
) -> Callable[[Points], Array]:
    """Return the upper confidence bound of what the donor's next interval gains under given points.

    The kernel is fitted to the rows at `fitted`; its length and noise then hold for all.
    """
    times = _unit(np.array([*(row.begun for row in rows), past.step], dtype=np.float64))
    scores = _unit(np.array([*(row.before for row in rows), past.score], dtype=np.float64))

    def here(points: Points) -> Inputs:
        """Place points at the donor's step and score; so too running members, whose own are unknown here."""
        count = len(points.numbers)
        return Inputs(np.full(count, times[-1]), np.full(count, scores[-1]), *points)

    known = Inputs(times[:-1], scores[:-1], *encode_points(code, [row.hyperparameters for row in rows]))
    kernel = gaussian.fit(known.taken(fitted), labels[fitted])
    learnt = gaussian.condition(kernel, known, labels)
    # the settings that run now count as measured without noise: else, where gains are noisy, a clone would
    # try again what another member is trying
    pending = gaussian.joined(known, here(encode_points(code, past.running)))
    expected = gaussian.condition(kernel, pending, np.zeros(len(pending.times)), certain=len(past.running))
    width = math.sqrt(max(0.2 * math.log(0.4 * len(rows)), LEAST_BETA))

    def worth(points: Points) -> Array:
        at = here(points)
        return gaussian.mean(learnt, at) + width * gaussian.deviation(expected, at)

    return worth


def maximised(
    worth: Callable[[Points], Array], code: Coding, donor: Points, reach: float, rng: np.random.Generator
) -> Points:
    """Return the one point, within `reach` of the donor, that is worth the most of those tried."""
    low, high = np.maximum(donor.numbers - reach, 0.0), np.minimum(donor.numbers + reach, 1.0)
    numbers = rng.uniform(low, high, (CANDIDATES, len(code.numbers)))
    tried = Points(numbers, _categories(code, donor, reach, rng))
    best = _best(worth, snapped(code, tried))
    for centre, radius in [(donor, RADII[0]), *((None, radius) for radius in RADII)]:
        start = best if centre is None else centre
        steps = radius * (high - low) * rng.standard_normal((NEIGHBOURS, len(code.numbers)))
        categories = _changed(code, start, NEIGHBOURS, rng)
        if math.isfinite(reach):
            far = (categories != donor.categories).sum(axis=1) > 1
            categories[far] = start.categories
        near = Points(np.clip(start.numbers + steps, low, high), categories)
        best = _best(worth, _stacked(best, snapped(code, near)))
    return best


def _best(worth: Callable[[Points], Array], points: Points) -> Points:
    place = int(np.argmax(worth(points)))
    return points.taken(slice(place, place + 1))


def _categories(code: Coding, donor: Points, reach: float, rng: np.random.Generator) -> Places:
    """Return categories for all candidates; where there are few combinations, each comes equally often."""
    sizes = [len(values) for values in code.categories.values()]
    if math.isfinite(reach) or not sizes:
        return _changed(code, donor, CANDIDATES, rng)
    if math.prod(sizes) > CANDIDATES // NEIGHBOURS:
        return rng.integers(sizes, size=(CANDIDATES, len(sizes)))
    turns = np.arange(CANDIDATES) % math.prod(sizes)
    return np.stack(np.unravel_index(turns, sizes), axis=1)


def _changed(code: Coding, start: Points, count: int, rng: np.random.Generator) -> Places:
    """Return the start's categories `count` times, one of them drawn again in every second."""
    categories = np.repeat(start.categories, count, axis=0)
    sizes = np.array([len(values) for values in code.categories.values()], dtype=np.int64)
    if sizes.size:
        rows = np.arange(0, count, 2)
        columns = rng.integers(sizes.size, size=rows.size)
        categories[rows, columns] = rng.integers(sizes[columns])
    return categories


def _stacked(first: Points, second: Points) -> Points:
    return Points(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def _unit(values: Array) -> Array:
    """Return the values scaled to [0, 1], or zeros where all are equal but for rounding."""
    span = values.max() - values.min()
    # equal values may differ by rounding
    return (values - values.min()) / span if span > ROUNDING * np.abs(values).max() else np.zeros_like(values)
