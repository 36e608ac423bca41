"""Greed in its smallest form: lowering the rate pays at once, and training needs it high."""

import numpy as np

from policies import population
from policies.exploit import Truncation
from policies.explore import Perturb
from policies.frequencies import MultipleFrequency
from policies.population import Report, decide
from policies.rules import ALONE, Rules
from policies.space import Float

SPACE = {"rate": Float(0.01, 1.0, log=True)}
PERTURB = Perturb(resample=0.0)
STEPS, MEMBERS = 400, 16


def final_loss(rules: Rules, interval: int, seed: int) -> float:
    """Train 16 members of which each loses 2 % of its bias times its rate a step; loss = bias + rate / 2."""
    state, bias = population.start(SPACE, MEMBERS, seed), np.ones(MEMBERS)
    loss = bias
    for step in range(interval, STEPS + 1, interval):
        rates = np.array([known.hyperparameters["rate"] for known in state])
        bias = bias * (1 - 0.02 * rates) ** interval
        loss = bias + 0.5 * rates
        told = [Report(member, step, -score) for member, score in enumerate(loss)]
        state, orders = decide(rules, SPACE, state, told, seed)
        copied = bias.copy()
        for order in orders:
            copied[order.member] = bias[order.donor]
        bias = copied
    return float(loss.min())


def mean_loss(rules: Rules, interval: int, seeds: int = 50) -> float:
    return float(np.mean([final_loss(rules, interval, seed) for seed in range(seeds)]))


def test_multiple_frequencies_resist_the_greed_of_truncation() -> None:
    truncation = Rules(Truncation(0.25), PERTURB)
    frequencies = Rules(MultipleFrequency((1, 4, 10, 20)), PERTURB)
    oracle = 0.98**STEPS + 0.5 * 0.01
    greedy, patient = mean_loss(truncation, 5), mean_loss(truncation, 25)
    random, mixed = mean_loss(ALONE, 25), mean_loss(frequencies, 5)
    assert abs(random - 0.247) < 0.02
    assert abs(patient - 0.183) < 0.05 and abs(greedy - 0.837) < 0.05 and abs(mixed - 0.110) < 0.05
    assert oracle < mixed < patient < random < greedy
