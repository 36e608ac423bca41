"""Skill-It: a graph of which group teaches what, times the losses that are left."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shoal.policies.arrays import Vector
from shoal.policies.mixers.mixer import VALIDATION, Groups, Measurement, MixerState, Wish
from shoal.policies.mixing import exponentiated


@dataclass(frozen=True)
class SkillIt:
    """Shares in proportion to exp(rate * graph @ recent validation losses) (Chen et al., 2023).

    `graph[i][j]` is how much training on group i helps target j: the row is trained, the column judged.
    `skills_graph` makes one out of a short run a group, which is part of what the method costs. Each update
    begins from uniform again; what memory there is are the last `window` updates' losses, added up.
    """

    graph: tuple[tuple[float, ...], ...]  # how much training on a group helps a target
    rate: float = 0.2  # how far an update moves the mixture
    every: int = 50  # steps from update to update
    window: int = 3
    signals: ClassVar[frozenset[str]] = frozenset({VALIDATION})

    def __post_init__(self) -> None:
        if self.every < 1 or self.window < 1 or not self.rate >= 0:
            raise ValueError(
                f"every and window must be at least 1 and rate at least 0, but got {self.every}, "
                f"{self.window}, {self.rate}."
            )
        if not self.graph or len({len(row) for row in self.graph}) != 1 or not np.isfinite(self.graph).all():
            raise ValueError("graph must have a finite number for each group and target, a row a group.")

    def check(self, groups: Groups) -> None:
        shape = len(self.graph), len(self.graph[0])
        if shape != (groups.count, len(groups.targets)):
            raise ValueError(
                f"graph must have a row for each of {groups.names} and a column for each of {groups.targets}, "
                f"but it is {shape}."
            )
        if self.every >= groups.steps:
            raise ValueError(
                f"every must be less than the run's {groups.steps} steps, or no loss would ever be heard, "
                f"but got {self.every}."
            )

    def start(self, groups: Groups, prior: Vector | None, seed: int) -> MixerState:
        self.check(groups)
        base = self._towards(np.ones(len(groups.targets))) if prior is None else prior
        return {"base": base, "proportions": base, "losses": []}

    def wish(self, groups: Groups, state: MixerState, step: int, left: int) -> Wish:
        steps = min(self.every, left)
        return Wish(steps, state["proportions"], self.signals if steps < left else frozenset())

    def learn(self, groups: Groups, state: MixerState, wish: Wish, measurement: Measurement) -> MixerState:
        if measurement.validation is None:
            return state
        losses = np.array([sequences.mean() for sequences in measurement.validation])
        told = np.isfinite(losses)
        if not told.any():
            return state
        # a target that is not finite counts as before, one that never was as the mean of the others
        before = state["losses"][-1] if state["losses"] else np.full(len(losses), losses[told].mean())
        losses = np.where(told, losses, before)
        recent = [*state["losses"], losses][-self.window :]
        return state | {"losses": recent, "proportions": self._towards(np.sum(recent, axis=0))}

    def _towards(self, losses: Vector) -> Vector:
        return exponentiated(
            np.full(len(self.graph), 1 / len(self.graph)), np.array(self.graph) @ losses, self.rate
        )


def skills_graph(before: Vector, after: Vector) -> tuple[tuple[float, ...], ...]:
    """Return a graph: by which share each target's loss fell while one group alone was trained.

    `before` (targets,) are the losses that all runs begin with, above 0; `after` (groups, targets) what each
    ended at.
    """
    if not (before > 0).all():
        raise ValueError(f"the losses of before must be above 0, but got {before.tolist()}.")
    return tuple(map(tuple, ((before - after) / before).tolist()))
