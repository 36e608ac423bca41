"""Ray Tune's own ASHA on a benchmark's task, stopped when it has used the same member-steps.

Tune's scheduler decides, trial by trial, as in a Tune experiment that trains as many trials at once as a
population has members. There is no Ray around it: what runs at once trains as a stack, as populations do.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.parts.tasks import Task
from shoal.policies import population
from shoal.search.worker.teams import teams
from shoal.trainables.member import Member

DIVERGED = -1e30  # Tune would let a trial without a finite score go on for ever


class Halving:
    """The trials of one experiment: `running` ones, and the best that has ended."""

    def __init__(self, task: Task, seed: int):
        self.task, self.seed = task, seed
        self.rounds = task.steps // task.interval
        self.scheduler = AsyncHyperBandScheduler(
            "round", "score", "max", max_t=self.rounds, grace_period=1, reduction_factor=4
        )
        # more than the budget can begin
        self.starts = population.start(task.space, task.members * self.rounds, seed)
        self.running: dict[int, Member] = {}
        self.ages: dict[int, int] = {}
        self.scores: dict[int, float] = {}  # the last ones of those that run
        self.best: tuple[float, Member | None] = (-np.inf, None)

    def fill(self) -> None:
        while len(self.running) < self.task.members:
            number = len(self.ages)
            values = self.starts[number].hyperparameters
            self.running[number], self.ages[number] = self.task.make(values, 1000 * self.seed + number), 0
            self.scheduler.on_trial_add(None, trial(number))

    def train(self, most: int) -> int:
        """Train the oldest trials for an interval, `most` of them, and end those that Tune ends."""
        training = dict(list(self.running.items())[:most])
        for team in teams(training, None):
            for number, row in team.train(self.task.interval).items():
                self.ages[number] += 1
                self.scores[number] = row.score if np.isfinite(row.score) else DIVERGED
        for number in training:
            said = {"round": self.ages[number], "score": self.scores[number]}
            if self.scheduler.on_trial_result(None, trial(number), said) == TrialScheduler.STOP:
                self.end(number)
        return len(training)

    def end(self, number: int) -> None:
        """Let a trial go; of those that have ended only the best by its last score is kept."""
        member, score = self.running.pop(number), self.scores[number]
        if score > self.best[0]:
            self.best = score, member


def train_by_asha(task: Task, seed: int) -> Member:
    """Return the trial whose last score on the validation rows is the best."""
    halving = Halving(task, seed)
    left = task.members * halving.rounds
    while left > 0:
        halving.fill()
        left -= halving.train(left)
    for number in list(halving.scores.keys() & halving.running.keys()):
        halving.end(number)
    best = halving.best[1]
    assert best is not None
    return best


def trial(number: int) -> Any:
    return SimpleNamespace(trial_id=str(number))  # all that the scheduler looks at
