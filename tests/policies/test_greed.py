"""Greed in its smallest form: lowering the rate pays at once, and training needs it high."""

import numpy as np

from shoal.policies import population
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.fire import Fire, outpaces
from shoal.policies.frequencies import MultipleFrequency
from shoal.policies.population import Report, decide
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.space import Float

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
    random, mixed = mean_loss(LEFT_ALONE, 25), mean_loss(frequencies, 5)
    assert abs(random - 0.247) < 0.02
    assert abs(patient - 0.183) < 0.05 and abs(greedy - 0.837) < 0.05 and abs(mixed - 0.110) < 0.05
    assert oracle < mixed < patient < random < greedy


def test_parents_judged_by_their_rate_resist_greed_better() -> None:
    # on this toy, which has no noise, short evaluations are best: 0.006, 0.009, 0.023 and 0.044 for a patience
    # of 1, 2, 4 and 8 decisions
    greedy, mixed, fire = (
        mean_loss(Rules(exploit, PERTURB), 5)
        for exploit in (Truncation(0.25), MultipleFrequency((1, 4, 10, 20)), Fire(2))
    )
    assert abs(fire - 0.0089) < 0.003
    assert fire < mixed < greedy


def curve(rate: float, score: float, low: float = 0.01) -> tuple[float, ...]:
    """Return what an evaluator of low rate sees, in three intervals of 5 steps, of weights that scored this."""
    bias = -score - 0.5 * rate
    return score, *(-bias * (1 - 0.02 * low) ** (5 * i) - 0.5 * low for i in (1, 2, 3))


def test_a_high_rate_outpaces_a_low_one_of_the_same_score() -> None:
    high, low = curve(1.0, -0.80), curve(0.01, -0.79)
    assert outpaces(high, low) and not outpaces(low, high)
    assert high[0] < low[0]  # by its score the low rate would win
