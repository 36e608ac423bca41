"""ADO: follow the groups whose training loss a fitted scaling law says is falling fastest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.mixers.curves import Curve, fit_curve
from policies.mixers.mixer import TRAINING, Groups, Outcome, State, Wish
from policies.mixing import Counts, Vector, bounded, normalise

POINTS = 300  # that a law is fitted to; older ones are merged in pairs
FEWEST = 30


@dataclass(frozen=True)
class ADO:
    """Shares by learning speed and credit (Jiang et al., 2025); needs no validation and no other run.

    rho is in proportion to size * credit ** power * speed, where credit is the recent share of a group
    and speed the slope of its fitted loss eps + beta n ** -alpha. What is trained is `fresh` * rho +
    (1 - fresh) * the mean of all rho so far. With a power above 0 large groups grow without any evidence,
    towards size ** (1 / (1 - power)). The paper refits every 1000 steps and skips as many.
    """

    every: int = 10  # steps of one mixture; the paper's 1
    refit: int = 100  # steps between fits
    skip: int = 50  # first steps that no law is fitted to: the warm-up
    fresh: float = 0.1  # gamma_2
    recency: float = 0.1  # gamma_1
    power: float = 0.5  # s
    least: float = 0.01  # delta_min, of rho and of what is trained
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

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> State:
        self.check(groups)
        base = bounded(groups.shares if prior is None else prior, self.least, 1.0)
        return {
            "base": base,
            "proportions": base,
            "credit": base,
            "mean": base,  # of rho over all mixtures
            "mixtures": 0,
            "step": 0,
            "rows": 0.0,  # of all groups: what one learns helps the others
            "refitted": 0,  # the step of the last fit
            "last": np.full(groups.count, np.nan),  # the last loss that was seen of each group
            "at": np.zeros(0),  # (points,) rows
            "losses": np.zeros((groups.count, 0)),  # (groups, points)
            "curves": np.full((groups.count, 3), np.nan),  # eps, beta, alpha
        }

    def wish(self, groups: Groups, state: State, step: int, left: int) -> Wish:
        return Wish(min(self.every, left), state["proportions"], self.signals)

    def learn(self, groups: Groups, state: State, wish: Wish, outcome: Outcome) -> State:
        assert outcome.counts is not None and outcome.training is not None
        counts = outcome.counts
        after = state | {
            "step": state["step"] + len(counts),
            "rows": state["rows"] + float(counts.sum()),
            "credit": self._credit(state["credit"], counts / counts.sum(axis=1, keepdims=True)),
        }
        if after["step"] > self.skip:
            after |= _noted(state, after["rows"] - counts.sum() / 2, counts, outcome.training)
        due = after["step"] - after["refitted"] >= self.refit
        if due and len(after["at"]) >= FEWEST:
            known = [Curve(*row) for row in after["curves"]]
            curves = [
                fit_curve(after["at"], losses, before)
                for losses, before in zip(after["losses"], known, strict=True)
            ]
            after |= {"curves": np.array(curves), "refitted": after["step"]}
        return after | self._mixed(groups, after)

    def _credit(self, credit: Vector, shares: Vector) -> Vector:
        kept = (1 - self.recency) ** np.arange(len(shares), -1, -1)
        return np.asarray(kept[0] * credit + self.recency * kept[1:] @ shares)

    def _mixed(self, groups: Groups, state: State) -> State:
        """Return the next mixture; until all groups have a law, the one that it began with."""
        if np.isnan(state["curves"]).any():
            return {}
        _, beta, alpha = state["curves"].T
        # n is common to all groups, so its division cancels
        speed = np.maximum(alpha, self.slowest) * beta * state["rows"] ** -alpha
        wanted = groups.shares * state["credit"] ** self.power * speed
        if not (np.isfinite(wanted).all() and wanted.sum() > 0):
            return {}
        rho = bounded(normalise(wanted), self.least, 1.0)
        trained = bounded(self.fresh * rho + (1 - self.fresh) * state["mean"], self.least, 1.0)
        mixtures = state["mixtures"] + 1
        mean = state["mean"] + (rho - state["mean"]) / (mixtures + 1)
        return {"proportions": trained, "mean": mean, "mixtures": mixtures}


def _noted(state: State, at: float, counts: Counts, training: Vector) -> State:
    """Return the history with one more point a group: its mean loss, or its last one if it was absent."""
    present = (counts > 0) & np.isfinite(training)
    rows = np.where(present, counts, 0).sum(axis=0)
    sums = np.where(present, np.nan_to_num(training, posinf=0.0, neginf=0.0) * counts, 0.0).sum(axis=0)
    point = np.where(rows > 0, sums / np.maximum(rows, 1), state["last"])
    if np.isnan(point).any():  # a group that has never been seen: begin when all have
        return {"last": point}
    places, losses = np.append(state["at"], at), np.column_stack([state["losses"], point])
    if len(places) >= 2 * POINTS:
        places = places.reshape(-1, 2).mean(axis=1)
        losses = losses.reshape(len(losses), -1, 2).mean(axis=2)
    return {"last": point, "at": places, "losses": losses}
