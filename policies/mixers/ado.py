"""ADO: follow the groups whose training loss a fitted scaling law says is falling fastest."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.curves import LossCurve, fit_curve
from shoal.policies.mixers.mixer import TRAINING, Groups, Measurement, MixerState, Wish
from shoal.policies.mixing import Counts, bounded, normalise

POINTS = 300  # when there are twice as many points to fit a law to, they are merged in pairs
FEWEST_STEPS = 30  # steps after `skip` before a law is fitted


@dataclass(frozen=True)
class ADO:
    """Shares by learning speed and credit (Jiang et al., 2025); needs no validation and no other run.

    rho is in proportion to prior * credit ** power * speed, where the prior is the groups' sizes if none is
    given, credit is the recent share of a group and speed the slope of its fitted loss eps + beta n ** -alpha.
    What is trained is `fresh` * rho + (1 - fresh) * the mean of all rho so far. With a power above 0 large
    groups grow without any evidence, towards size ** (1 / (1 - power)).

    A law is fitted to the losses of single steps, by a loss that outliers hardly touch; the published code
    smooths them (Savitzky-Golay) and takes each 10th. The first fit comes with FEWEST steps after `skip`, and
    a run that ends before it is refused; the paper refits every 1000 steps and skips as many. A group without
    a law yet, since it was hardly seen, keeps its share, and the others move.
    """

    every: int = 10  # steps of one mixture; the paper's 1
    refit: int = 100  # steps between fits
    skip: int = 50  # first steps that no law is fitted to: the warm-up
    fresh: float = 0.1  # weight of the newest shares, gamma_2
    recency: float = 0.1  # weight of the newest step in a group's recent share, gamma_1
    power: float = 0.5  # how much credit counts, s
    least: float = 0.01  # least share of a group, delta_min, of rho and of what is trained
    slowest: float = 0.05  # alpha below which a law's slope is not believed
    signals: ClassVar[frozenset[str]] = frozenset({TRAINING})

    def __post_init__(self) -> None:
        if min(self.every, self.refit) < 1 or self.skip < 0:
            raise ValueError(
                f"every and refit must be at least 1 and skip at least 0, but got {self.every}, {self.refit}, "
                f"{self.skip}."
            )
        for name in ("fresh", "recency", "power", "least", "slowest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], but got {getattr(self, name)}.")

    def check(self, groups: Groups) -> None:
        if self.least * groups.count > 1:
            raise ValueError(f"least must be at most 1/{groups.count}, but got {self.least}.")
        first = self.every * math.ceil((self.skip + FEWEST_STEPS) / self.every)
        if first >= groups.steps:
            raise ValueError(
                f"ado moves first after step {first}, when {FEWEST_STEPS} steps after skip {self.skip} are "
                f"seen and a visit of every {self.every} ends, but the run has {groups.steps}: lower skip or "
                f"every, or train longer."
            )

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        given = groups.shares if prior is None else prior
        base = bounded(given, self.least, 1.0)
        return {
            "base": base,
            "prior": given,  # mu in the paper
            "proportions": base,
            "credit": base,
            "mean": base,  # mean of rho over all mixtures so far
            "mixtures": 0,
            "step": 0,
            "rows": 0.0,  # trained, all groups together: a law is over these, since groups help one another
            "refitted": 0,  # the step of the last fit; 0 before the first
            "last": np.full(groups.count, np.nan),  # the last loss that was seen of each group
            "at": np.zeros(0),  # (points,) rows
            "losses": np.zeros((groups.count, 0)),  # (groups, points); NaN until a group is first seen
            "curves": np.full((groups.count, 3), np.nan),  # eps, beta, alpha
        }

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        return Wish(min(self.every, left), state["proportions"], self.signals)

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        assert measurement.counts is not None and measurement.training is not None
        counts, skipped = measurement.counts, max(self.skip - state["step"], 0)
        ends = state["rows"] + np.cumsum(counts.sum(axis=1, dtype=np.float64))
        after = state | {
            "step": state["step"] + len(counts),
            "rows": float(ends[-1]),
            "credit": self._credit(state["credit"], counts / counts.sum(axis=1, keepdims=True)),
        }
        middles = ends - counts.sum(axis=1) / 2
        after |= _noted(state, middles[skipped:], counts[skipped:], measurement.training[skipped:])
        due = not state["refitted"] or after["step"] - after["refitted"] >= self.refit
        if due and after["step"] >= self.skip + FEWEST_STEPS:
            curves = [
                _fitted(after["at"], losses, LossCurve(*row))
                for losses, row in zip(after["losses"], after["curves"], strict=True)
            ]
            after |= {"curves": np.array(curves), "refitted": after["step"]}
        return after | self._mixed(after)

    def _credit(self, credit: Vector, shares: Vector) -> Vector:
        kept = (1 - self.recency) ** np.arange(len(shares), -1, -1)
        return np.asarray(kept[0] * credit + self.recency * kept[1:] @ shares)

    def _mixed(self, state: MixerState) -> MixerState:
        """Return the next mixture; until a group has a law, the one that it began with."""
        _, beta, alpha = state["curves"].T
        # n is common to all groups, so its division cancels
        speed = np.maximum(alpha, self.slowest) * beta * state["rows"] ** -alpha
        wanted = state["prior"] * state["credit"] ** self.power * speed
        known = np.isfinite(wanted)
        if not wanted[known].sum() > 0:
            return {}
        rho = state["base"].copy()  # a group without a law keeps this share
        rho[known] = normalise(wanted[known]) * rho[known].sum()
        rho = bounded(normalise(rho), self.least, 1.0)
        trained = bounded(self.fresh * rho + (1 - self.fresh) * state["mean"], self.least, 1.0)
        mixtures = state["mixtures"] + 1
        mean = state["mean"] + (rho - state["mean"]) / (mixtures + 1)
        return {"proportions": trained, "mean": mean, "mixtures": mixtures}


def _fitted(at: Vector, losses: Vector, before: LossCurve) -> LossCurve:
    """Return the law of a group's losses since it was first seen; with few losses, the law `before`."""
    seen = np.isfinite(losses)
    return fit_curve(at[seen], losses[seen], before) if seen.sum() >= FEWEST_STEPS else before


def _noted(state: MixerState, at: Vector, counts: Counts, training: Vector) -> MixerState:
    """Return the history with a point a step: each group's mean loss, or its last one if it was absent."""
    points = [state["last"]]
    for seen, losses in zip(counts > 0, training, strict=True):
        points.append(np.where(seen & np.isfinite(losses), losses, points[-1]))
    places = np.append(state["at"], at)
    history = np.column_stack([state["losses"], *points[1:]])
    while len(places) >= 2 * POINTS:
        half = len(places) // 2
        merged = 2 * half
        places = np.append(places[:merged].reshape(half, 2).mean(axis=1), places[merged:])
        pairs = history[:, :merged].reshape(len(history), half, 2).mean(axis=2)
        history = np.column_stack([pairs, history[:, merged:]])
    return {"last": points[-1], "at": places, "losses": history}
